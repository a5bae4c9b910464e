"""Keys and running services: rotation without a restart, and where a service may listen without them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.__main__ import main
from tests.contract.conftest import free_port, wait_until_ready
from tests.e2e.conftest import Group
from tests.service.conftest import encoded, eventually
from tests.service.tiny_bundle import picture

EVERYWHERE = "0.0.0.0"  # noqa: S104 - on purpose; ports are taken for moments, and everything asks for a key


def environment(**settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")}
    return clean | {f"MASKLOOP_{name.upper()}": value for name, value in settings.items()}


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**settings), timeout=60, check=False)


def keys(data_dir: Path, *arguments: str) -> str:
    done = run("keys", *arguments, "--data-dir", str(data_dir))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def serving(bundle: Path, data_dir: Path, *options: str, **settings: str) -> Iterator[str]:
    """`python -m service serve`, ready."""
    port = str(free_port())
    command = [sys.executable, "-m", "service", "serve", "--port", port, "--data-dir", str(data_dir), *options]
    process = subprocess.Popen([*command, "--model", str(bundle)], env=environment(**settings))
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_rotation_without_a_restart(bundle: Path, tmp_path: Path) -> None:
    """From none to the first, from the old to the new, and from the last to none: no moment in which all are let in."""
    data_dir, image = tmp_path / "data", encoded(picture())
    with serving(bundle, data_dir) as address, httpx.Client(base_url=address, timeout=20) as client:

        def status(key: str | None = None) -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return client.post("/v1/segment", content=image, headers=headers).status_code

        assert status() == 200
        old = keys(data_dir, "create", "old", "--scope", "predict")
        eventually(lambda: status(old) == 200)
        assert status() == 401
        new = keys(data_dir, "create", "new", "--scope", "predict")
        eventually(lambda: status(new) == 200)
        assert status(old) == 200
        keys(data_dir, "revoke", "old")
        eventually(lambda: status(old) == 401)
        assert (status(new), status()) == (200, 401)
        keys(data_dir, "revoke", "new")
        eventually(lambda: status(new) == 401)
        assert status() == 401
    # Ended, it has said when they were used.
    assert '"last_used_at": null' not in keys(data_dir, "list", "--json")


@pytest.mark.parametrize(("command", "host"), [("up", EVERYWHERE), ("serve", "::")])
def test_without_a_key_it_does_not_listen_to_others(tmp_path: Path, command: str, host: str) -> None:
    refused = run(command, "--host", host, "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {host} can be reached by others")
    assert "python -m service keys create" in refused.stderr
    assert "--insecure" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "Traceback" not in refused.stderr


def test_with_a_key_of_the_settings_it_does(bundle: Path, tmp_path: Path) -> None:
    key = "k" * 40
    with serving(bundle, tmp_path / "data", "--host", EVERYWHERE, api_key=key) as address:
        assert httpx.get(f"{address}/v1/models").status_code == 401
        assert httpx.get(f"{address}/v1/models", headers={"X-API-Key": key}).status_code == 200


def test_a_group_that_lets_everybody_in(bundle: Path, tmp_path: Path) -> None:
    """`up` passes on what it was told to the process that answers: there is a key, and nobody needs it."""
    keys(tmp_path / "data", "create", "camera", "--scope", "predict")
    group = Group(tmp_path / "data", "--host", EVERYWHERE, "--insecure", "--model", str(bundle))
    try:
        assert httpx.post(f"{group.ready()}/v1/images", content=encoded(picture())).status_code == 201
    finally:
        group.end(signal.SIGTERM)
        assert group.process.stderr is not None
        group.process.stderr.close()


def test_a_key_file_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    options = ["--port", "0", "--data-dir", str(tmp_path / "data")]
    refused = run("up", *options, api_key_file=str(tmp_path / "none"))
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: MASKLOOP_API_KEY_FILE")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("API_KEY", "short-key", "20 characters"),
        ("ANONYMOUS_SCOPES", "everything", "predict,contribute,train,admin"),
    ],
)
def test_settings_that_make_no_sense_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"MASKLOOP_{name}", value)
    assert main(["serve"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: MASKLOOP_{name}:")
    assert said in error
    assert "short-key" not in error


def test_a_fault_leaves_no_variables_in_the_log() -> None:
    """Where rich is installed, structlog's console would print every function's: keys and images among them."""
    program = (
        "import structlog\n"
        "from service.logs import configure_logs\n"
        "from service.settings import Settings\n"
        "configure_logs(Settings())\n"
        "def handler(key):\n"
        "    raise RuntimeError('a fault')\n"
        "try:\n"
        "    handler(''.join(['sec', 'ret']))\n"
        "except RuntimeError:\n"
        "    structlog.stdlib.get_logger('x').exception('failed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=60, check=True
    )
    assert "a fault" in done.stderr
    assert "Traceback" in done.stderr
    assert "secret" not in done.stderr
