"""Which server and which key a command uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.client.commands.connection import find_key, is_this_machine
from service.client.wrong_usage import WrongUsage
from tests.service.client.conftest import Run

HERE, ELSEWHERE = "http://127.0.0.1:8000", "https://maskloop.example.com"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MASKLOOP_API_KEY", "MASKLOOP_DATA_DIR", "MASKLOOP_SERVER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write_key(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_key_of_the_data_folder_is_for_this_machine_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_key(None, HERE) == (None, "no key")
    write_key(folder / "maskloop-data/api-key", "local\n")
    assert find_key(None, HERE) == ("local", "key of maskloop-data/api-key")
    assert find_key(None, ELSEWHERE) == (None, "no key")
    write_key(folder / "data/api-key", "other\n")
    monkeypatch.setenv("MASKLOOP_DATA_DIR", "data")
    assert find_key(None, HERE) == ("other", "key of data/api-key")
    monkeypatch.setenv("MASKLOOP_API_KEY", "variable")
    assert find_key(None, ELSEWHERE) == ("variable", "key of $MASKLOOP_API_KEY")
    file = write_key(folder / "file", "named")
    assert find_key(file, HERE) == ("named", f"key of {file}")


@pytest.mark.parametrize("text", ["", "two keys", "schlüssel"])
def test_file_that_holds_no_key_is_an_error(folder: Path, text: str) -> None:
    with pytest.raises(WrongUsage, match="must contain one API key and nothing else"):
        find_key(write_key(folder / "key", text), HERE)


def test_missing_key_file_is_an_error(folder: Path) -> None:
    with pytest.raises(WrongUsage, match="give another --key-file"):
        find_key(folder / "none", HERE)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("https://localhost", True),
        ("http://192.168.0.7", False),
        ("http://127.0.0.1.example.com", False),
        ("http://localhost@example.com", False),
    ],
)
def test_this_machine(url: str, *, here: bool) -> None:
    assert is_this_machine(url) == here


def test_command_says_what_it_uses_and_never_the_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLOOP_API_KEY", "maskloop_secret")
    ran = run("models", "list", "--server", "http://127.0.0.1:9", "--timeout", "1")
    assert ran.code == 1
    assert ran.err.startswith(
        "service http://127.0.0.1:9, key of $MASKLOOP_API_KEY\nerror: http://127.0.0.1:9 cannot be"
    )
    assert "secret" not in ran.out + ran.err
    assert "sent unencrypted" not in ran.err
    assert run("models", "list", "--server", "ftp://host").code == 2
