"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from service.settings import Settings, mistyped_variables
from service.state import open_state


def test_unknown_variables_are_logged_with_the_closest_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = mistyped_variables()
    monkeypatch.setenv("MASKLOOP_MAX_IMAGE_BYTE", "1")
    monkeypatch.setenv("MASKLOOP_ZZZ", "1")
    monkeypatch.setenv("maskloop_port", "8001")
    monkeypatch.setenv("OTHER_VARIABLE", "1")
    found = {name: meant for name, meant in mistyped_variables().items() if name not in before}
    assert found == {"MASKLOOP_MAX_IMAGE_BYTE": "MASKLOOP_MAX_IMAGE_BYTES", "MASKLOOP_ZZZ": None}
    with capture_logs() as lines:
        open_state(Settings(data_dir=tmp_path / "data")).close()
    told = {line["variable"]: line["did_you_mean"] for line in lines if "variable" in line}
    assert told["MASKLOOP_MAX_IMAGE_BYTE"] == "MASKLOOP_MAX_IMAGE_BYTES"


def test_variable_names_are_case_insensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("maskloop_port", "8001")
    assert Settings().port == 8001


@pytest.mark.parametrize(
    ("host", "value", "scopes"),
    [
        ("127.0.0.1", None, ("predict", "contribute")),
        ("::1", None, ("predict", "contribute")),
        ("0.0.0.0", None, ()),  # noqa: S104 - not bound
        ("my-machine", None, ()),
        ("127.0.0.1", "", ()),
        ("127.0.0.1", "contribute", ("contribute",)),
        ("0.0.0.0", "contribute, predict", ("predict", "contribute")),  # noqa: S104
    ],
)
def test_anonymous_scopes_depend_on_the_host_unless_set(
    monkeypatch: pytest.MonkeyPatch, host: str, value: str | None, scopes: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MASKLOOP_HOST", host)
    if value is not None:
        monkeypatch.setenv("MASKLOOP_ANONYMOUS_SCOPES", value)
    assert Settings().resolved_anonymous_scopes == scopes


@pytest.mark.parametrize("value", ["train", "admin", "predict,train", "all"])
def test_train_and_admin_cannot_be_anonymous(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MASKLOOP_ANONYMOUS_SCOPES", value)
    with pytest.raises(ValidationError, match="always need a key; choose some of predict,contribute"):
        Settings()


def test_names_of_guard_classes_may_contain_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().gate_guard_classes == ()
    monkeypatch.setenv("MASKLOOP_GATE_GUARD_CLASSES", "traffic light, rider,")
    assert Settings().gate_guard_classes == ("traffic light", "rider")


@pytest.mark.parametrize(("name", "value"), [("retrain_cron", "0 3 * *"), ("time_zone", "Mars/Olympus")])
def test_invalid_schedule_is_an_error_at_the_start(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})  # type: ignore[arg-type]  # the names vary
