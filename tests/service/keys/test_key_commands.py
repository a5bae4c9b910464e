"""`python -m service keys`, as a person or a script uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.__main__ import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def keys(*arguments: str) -> int:
    return main(["keys", *arguments])


def listed(capsys: Captured) -> list[dict[str, object]]:
    capsys.readouterr()
    assert keys("list", "--json") == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_from_nothing_to_a_key_and_back(capsys: Captured, tmp_path: Path) -> None:
    assert keys("list") == 0
    assert "keys create" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [], "asking makes nothing"

    assert keys("create", "camera", "--scope", "contribute,predict", "--rate-per-minute", "60") == 0
    said = capsys.readouterr()
    # The key alone, for KEY=$(...).
    assert said.out.startswith("maskloop_")
    assert len(said.out.split()) == 1
    assert said.out.strip() not in said.err
    assert "from now on every call needs a key" in said.err

    assert keys("create", "ops", "--scope", "all", "--expires-days", "30") == 0
    assert "from now on" not in capsys.readouterr().err
    assert keys("list") == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "camera", "ops"]
    assert "predict,contribute" in table[1]
    assert said.out.strip() not in "".join(table)

    assert keys("revoke", "camera") == 0
    camera, ops = listed(capsys)
    assert (camera["state"], camera["rate_per_minute"], camera["scopes"]) == ("revoked", 60, ["predict", "contribute"])
    assert (ops["state"], ops["rate_per_minute"]) == ("valid", None)
    assert ops["expires_at"] is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "camera"], "--scope"),
        (["create", "camera", "--scope", "everything"], "predict,contribute,train,admin"),
        (["create", "camera", "--scope", ","], "predict,contribute,train,admin"),
        (["create", "camera", "--scope", "all", "--rate-per-minute", "-1"], "no number of requests"),
        (["create", "camera", "--scope", "all", "--rate-per-minute", "99999999999"], "no number of requests"),
        (["create", "camera", "--scope", "all", "--expires-days", "0"], "no number of days"),
        (["create", "camera", "--scope", "all", "--expires-days", "nan"], "no number of days"),
        (["create", "camera", "--scope", "all", "--expires-days", "1e9"], "no number of days"),
        ([], "COMMAND"),
    ],
)
def test_a_command_line_that_makes_no_sense(capsys: Captured, arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        keys(*arguments)
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_done_is_said_in_one_line(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keys("revoke", "camera") == 1
    assert "--data-dir" in capsys.readouterr().err
    assert keys("create", "a b", "--scope", "all") == 1
    assert "cannot name a key" in capsys.readouterr().err
    assert keys("create", "camera", "--scope", "all") == 0
    capsys.readouterr()
    assert keys("create", "camera", "--scope", "all") == 1
    assert capsys.readouterr().err.startswith("error: There is a key 'camera' already")
    assert keys("revoke", "nobody") == 1
    assert "keys list" in capsys.readouterr().err
    monkeypatch.setenv("MASKLOOP_DATABASE_URL", "sqlite:////no/such/folder/x.db")
    assert keys("create", "camera", "--scope", "all") == 1
    assert "The database does not answer" in capsys.readouterr().err


def test_another_data_folder(capsys: Captured, tmp_path: Path) -> None:
    assert keys("create", "camera", "--scope", "all", "--data-dir", "there") == 0
    assert listed(capsys) == []
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
