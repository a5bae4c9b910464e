"""`python -m service keys` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.__main__ import main
from service.keys.api_key import write_local_key

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASKLOOP_API_KEY", raising=False)


def keys(*arguments: str) -> int:
    return main(["keys", *arguments])


def listed(capsys: Captured) -> list[dict[str, object]]:
    capsys.readouterr()
    assert keys("list", "--json") == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_create_list_and_revoke(capsys: Captured, tmp_path: Path) -> None:
    assert keys("list") == 0
    assert "keys create" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [], "listing must create nothing"

    assert keys("create", "camera", "--scope", "contribute,predict", "--rate-per-minute", "60") == 0
    said = capsys.readouterr()
    # Only the key goes to stdout, for KEY=$(...).
    assert said.out.startswith("maskloop_")
    assert len(said.out.split()) == 1
    assert said.out.strip() not in said.err
    assert "shown once" in said.err

    assert keys("create", "ops", "--scope", "all", "--expires-days", "30") == 0
    assert "expires at" in capsys.readouterr().err
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
        (["create", "camera", "--scope", "all", "--rate-per-minute", "-1"], "not a whole number"),
        (["create", "camera", "--scope", "all", "--rate-per-minute", "99999999999"], "not a whole number"),
        (["create", "camera", "--scope", "all", "--expires-days", "0"], "not a number of days"),
        (["create", "camera", "--scope", "all", "--expires-days", "nan"], "not a number of days"),
        (["create", "camera", "--scope", "all", "--expires-days", "1e9"], "not a number of days"),
        ([], "COMMAND"),
    ],
)
def test_invalid_command_line_exits_with_2(capsys: Captured, arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        keys(*arguments)
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_errors_are_one_line(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keys("revoke", "camera") == 1
    assert "--data-dir" in capsys.readouterr().err
    assert keys("create", "a b", "--scope", "all") == 1
    assert "not a valid key name" in capsys.readouterr().err
    assert keys("create", "camera", "--scope", "all") == 0
    capsys.readouterr()
    assert keys("create", "camera", "--scope", "all") == 1
    assert capsys.readouterr().err.startswith("error: A key named 'camera' exists")
    assert keys("revoke", "nobody") == 1
    assert "keys list" in capsys.readouterr().err
    monkeypatch.setenv("MASKLOOP_DATABASE_URL", "sqlite:////no/such/folder/x.db")
    assert keys("create", "camera", "--scope", "all") == 1
    assert "The database cannot be reached" in capsys.readouterr().err


def test_data_dir_selects_the_folder(capsys: Captured, tmp_path: Path) -> None:
    assert keys("create", "camera", "--scope", "all", "--data-dir", "there") == 0
    assert listed(capsys) == []
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_show_prints_the_key_of_the_first_start(capsys: Captured, tmp_path: Path) -> None:
    assert keys("show") == 1
    error = capsys.readouterr().err
    assert "api-key does not exist" in error
    assert "keys create NAME --scope all" in error
    assert list(tmp_path.iterdir()) == [], "showing must create nothing"

    assert keys("create", "first", "--scope", "all", "--data-dir", "data") == 0
    text = capsys.readouterr().out.strip()
    write_local_key(tmp_path / "data", text)
    assert keys("show", "--data-dir", "data") == 0
    assert capsys.readouterr().out == f"{text}\n"

    assert keys("revoke", "first", "--data-dir", "data") == 0
    capsys.readouterr()
    assert keys("show", "--data-dir", "data") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "was revoked" in shown.err


def test_show_prints_a_configured_key(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLOOP_API_KEY", "k" * 40)
    assert keys("show") == 0
    assert capsys.readouterr().out == "k" * 40 + "\n"
