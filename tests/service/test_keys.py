"""Keys of running services: first start, rotation without a restart, and public addresses."""

from __future__ import annotations

import json
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

EVERYWHERE = "0.0.0.0"  # noqa: S104 - on purpose, for moments; every call needs a key


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
    data_dir, image = tmp_path / "data", encoded(picture())
    serve = serving(bundle, data_dir, anonymous_scopes="")
    with serve as address, httpx.Client(base_url=address, timeout=20) as client:

        def status(key: str | None = None) -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return client.post("/v1/segment", content=image, headers=headers).status_code

        first = keys(data_dir, "show")
        assert (status(first), status()) == (200, 401)
        new = keys(data_dir, "create", "new", "--scope", "predict")
        eventually(lambda: status(new) == 200)
        assert status(first) == 200
        keys(data_dir, "revoke", "first")
        eventually(lambda: status(first) == 401)
        assert (status(new), status()) == (200, 401)
        keys(data_dir, "revoke", "new")
        eventually(lambda: status(new) == 401)
        assert status() == 401
    # The service recorded the last use of each key at its end.
    assert '"last_used_at": null' not in keys(data_dir, "list", "--json")


def test_revoked_first_key_is_not_created_again(bundle: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(bundle, data_dir):
        keys(data_dir, "show")
    keys(data_dir, "revoke", "first")
    with serving(bundle, data_dir) as address:
        assert httpx.post(f"{address}/v1/segment", content=encoded(picture())).status_code == 200
        assert httpx.get(f"{address}/v1/runs").status_code == 401
    assert len(json.loads(keys(data_dir, "list", "--json"))) == 1
    assert run("keys", "show", "--data-dir", str(data_dir)).returncode == 1


@pytest.mark.parametrize(("command", "host"), [("up", EVERYWHERE), ("serve", "::")])
def test_public_address_is_refused_if_all_keys_are_revoked(tmp_path: Path, command: str, host: str) -> None:
    keys(tmp_path / "data", "create", "camera", "--scope", "all")
    keys(tmp_path / "data", "revoke", "camera")
    refused = run(command, "--host", host, "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {host} is reachable from other machines")
    assert "maskloop keys create" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "Traceback" not in refused.stderr


def test_first_start_of_up_on_a_public_address(bundle: Path, tmp_path: Path) -> None:
    """It creates and prints one key, and nothing is open without it."""
    data_dir = tmp_path / "data"
    group = Group(data_dir, "--host", EVERYWHERE, "--model", str(bundle))
    try:
        url = group.ready()
        key = keys(data_dir, "show")
        links = [line for line in group.lines if "?key=" in line]
        assert [line.split()[-1] for line in links] == [f"{url}/?key={key}"]
        assert httpx.post(f"{url}/v1/segment", content=encoded(picture())).status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.post(f"{url}/v1/segment", content=encoded(picture()), headers=headers).status_code == 200
        assert (data_dir / "api-key").stat().st_mode & 0o777 == 0o600
        # The browser's way in.
        with httpx.Client(follow_redirects=True) as browser:
            assert browser.get(links[0].split()[-1]).url.path == "/docs"
            assert browser.get(f"{url}/v1/runs").status_code == 200
    finally:
        group.end(signal.SIGTERM)
        assert group.process.stderr is not None
        group.process.stderr.close()
    assert [entry["name"] for entry in json.loads(keys(data_dir, "list", "--json"))] == ["first"]
    # Printed once, with the link, and nowhere else.
    assert sum(key in line for line in group.lines) == 1


def test_proxy_on_the_same_machine_gets_only_the_anonymous_scopes(bundle: Path, tmp_path: Path) -> None:
    """What a stock nginx sends: its requests come from loopback, with any `Host`."""
    proxied: list[dict[str, str]] = [
        {},
        {"Host": "127.0.0.1"},
        {"Host": "localhost", "Connection": "close"},
        {"Host": "www.example.com"},
        {"Host": "www.example.com", "X-Forwarded-For": "203.0.113.7"},
        {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
    ]
    calls = [
        ("GET", "/v1/runs"),
        ("POST", "/v1/runs"),
        ("GET", "/v1/images"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models/rollback"),
        ("POST", "/v2/repository/models/seg/load"),
    ]
    with serving(bundle, tmp_path / "data") as address, httpx.Client(base_url=address, timeout=20) as client:
        for method, path in calls:
            for headers in proxied:
                expected = 403 if headers == {"Host": "www.example.com"} else 401
                assert client.request(method, path, headers=headers).status_code == expected, (path, headers)
        assert client.post("/v1/segment", content=encoded(picture())).status_code == 200
        for headers in proxied[-3:]:
            assert client.post("/v1/segment", content=encoded(picture()), headers=headers).status_code == 401
        assert client.get("/metrics").status_code == 200
        assert client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 401


def test_configured_key_allows_a_public_address(bundle: Path, tmp_path: Path) -> None:
    key = "k" * 40
    with serving(bundle, tmp_path / "data", "--host", EVERYWHERE, api_key=key) as address:
        assert httpx.get(f"{address}/v1/models").status_code == 401
        assert httpx.get(f"{address}/v1/models", headers={"X-API-Key": key}).status_code == 200


def test_missing_key_file_is_a_one_line_error(tmp_path: Path) -> None:
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
        ("ANONYMOUS_SCOPES", "predict,admin", "admin always need a key"),
    ],
)
def test_invalid_settings_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"MASKLOOP_{name}", value)
    assert main(["serve"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: MASKLOOP_{name}:")
    assert said in error
    assert "short-key" not in error


def test_logged_traceback_contains_no_local_variables() -> None:
    """With rich installed, structlog's console would print those of every frame: keys and images among them."""
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
