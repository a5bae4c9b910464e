"""`maskloop runs` and `maskloop models`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.state import State
from tests.service.api.middleware.conftest import serving
from tests.service.client.conftest import Run
from tests.service.conftest import eventually
from tests.service.runs.conftest import BAD, GOOD, fill, perform_run, register_worker
from tests.service.tiny_bundle import zipped


@pytest.fixture
def served(loop: State, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    """A service with labels, and the stores that it shares with a worker."""
    fill(loop)
    register_worker(loop)
    # The worker sends no heartbeat.
    with serving(loop.settings.model_copy(update={"heartbeat_s": 3600.0})) as (host, port):
        monkeypatch.setenv("MASKLOOP_SERVER", f"{host}:{port}")
        yield loop


def test_run_is_started_and_watched_to_its_end(run: Run, served: State) -> None:
    def work() -> None:
        eventually(lambda: bool(served.runs.list()))
        perform_run(served, served.runs.list()[0].id)

    worker = threading.Thread(target=work)
    worker.start()
    ran = run("runs", "start", "--wait", "--json")
    worker.join()
    assert ran.code == 0, ran.err
    ended = ran.json()
    assert (ended["status"], ended["candidate_version"]) == ("judged", GOOD)
    assert "Ctrl-C stops waiting, the run goes on" in ran.err

    assert [each["id"] for each in run("runs", "list", "--json").json()] == [ended["id"]]
    assert ended["id"] in run("runs", "list").out
    assert "judged" in run("runs", "show", ended["id"]).out
    assert run("runs", "log", ended["id"]).code == 0
    assert run("runs", "next").out

    again = run("runs", "repeat", ended["id"])
    assert again.code == 0, again.err
    repeated = again.out.strip()
    assert run("runs", "cancel", repeated, "--json").json()["status"] == "cancelled"
    # A run that was cancelled is no success.
    assert run("runs", "wait", repeated).code == 1


def test_models_are_imported_activated_and_deleted(run: Run, served: State, good: Path, tmp_path: Path) -> None:
    assert run("models", "import", good).out == f"{GOOD}\n"
    assert run("models", "activate", GOOD).out == f"{GOOD} serves\n"
    assert run("models", "rollback", "--json").json()["version"] == BAD
    shown = run("models", "list").out
    assert all(version in shown for version in (BAD, GOOD))
    assert "white" in run("models", "show", GOOD).out
    assert served.models.activated() is not None

    refused = run("models", "delete", BAD)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.splitlines()[-1].startswith("error: ")

    (tmp_path / "bundle.zip").write_bytes(zipped(good))
    assert run("models", "import", "bundle.zip").code in (0, 1)
    assert "has no manifest.json; `maskloop export` makes one" in run("models", "import", tmp_path).err
    assert run("models", "import", "nothing").code == 2
