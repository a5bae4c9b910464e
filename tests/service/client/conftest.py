"""A service on a real port, and the command line of its client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.client.commands.command_line import main
from service.client.sync_client import Client
from tests.service.api.middleware.conftest import serving
from tests.service.conftest import TEST_KEY, encoded, settings_maker
from tests.service.runs.conftest import actor, bad, clock, good, loop, loop_settings
from tests.service.tiny_bundle import picture, write_bundle

__all__ = ["actor", "bad", "clock", "good", "loop", "loop_settings"]


@pytest.fixture(autouse=True)
def silent_service() -> Iterator[None]:
    """Keep the log of the service, which runs in this process, out of the output of commands."""
    with capture_logs():
        yield


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a service that takes at most 8 images in a batch."""
    folder = tmp_path_factory.mktemp("service")
    with serving(settings_maker(folder, write_bundle(folder / "bundle"))(max_batch_images=8)) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, TEST_KEY) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Run:
    """Run `maskloop ...` in an empty folder, with the key of the service of `url`, if the test uses it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKLOOP_API_KEY", TEST_KEY)
    if "url" in request.fixturenames:
        monkeypatch.setenv("MASKLOOP_SERVER", request.getfixturevalue("url"))

    def ran(*words: str | Path) -> Ran:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ran(code, *capsys.readouterr())

    return ran


def write_pictures(folder: Path, *names: str, seed: int = 0) -> None:
    """Write one PNG for each name."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(seed=1000 * seed + number)))
