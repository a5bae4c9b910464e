"""Full disks, read-only folders and unreachable databases: at the start, and while the service runs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import event
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from structlog.testing import capture_logs

from service.api.forms import IN_MEMORY_BYTES
from service.errors import DatabaseUnwritable, StorageFailed, StorageUnwritable
from service.state import State
from service.storage import data_folder
from service.storage.storage_faults import storage_fault, storage_faults
from service.storage.tables import Release, Run, RunLabel, Worker
from tests.service.conftest import MakeSettings, encoded, eventually, read, sample, serve
from tests.service.test_process import running
from tests.service.tiny_bundle import COLORS, nearest, picture, zipped
from tests.small_disk import Disk, small_disk

FREE = 2**20
PROGRAM = "urn:maskloop:problem:storage-unwritable"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 12) as mounted:
        yield mounted


def start(command: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {f"MASKLOOP_{name.upper()}": value for name, value in settings.items()}
    arguments = {"keys": ["list"], "worker": []}.get(command, ["--port", "0"])
    program = [sys.executable, "-m", "service", command, *arguments, "--data-dir", str(folder)]
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)


def only_line(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    return line


@pytest.mark.parametrize("command", ["up", "serve", "worker", "keys"])
def test_start_on_a_full_disk_gives_one_line(disk: Disk, command: str) -> None:
    data = disk.folder / "data"
    # `keys list` reads an existing database only.
    data.mkdir()
    (data / "maskloop.db").touch()
    disk.fill()
    line = only_line(start(command, data, broker_url="" if command == "up" else "redis://localhost"))
    assert line == (
        f"error: The data folder {data} is full: free space on its disk, or choose another folder "
        "(MASKLOOP_DATA_DIR, --data-dir)."
    )


@pytest.mark.parametrize("command", ["up", "serve", "worker"])
def test_start_in_a_read_only_folder_gives_one_line(disk: Disk, command: str) -> None:
    disk.set_read_only(on=True)
    line = only_line(start(command, disk.folder / "data", broker_url="" if command == "up" else "redis://localhost"))
    assert line.startswith(f"error: The data folder {disk.folder}/data cannot be written (Read-only file system): give")


def test_data_dir_that_is_a_file_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "data"):
        for command in ("up", "serve"):
            assert only_line(start(command, folder)).startswith(f"error: {folder} is not a folder: choose another")


@pytest.mark.parametrize("command", ["serve", "up", "worker"])
def test_damaged_or_unreachable_database_gives_one_line(tmp_path: Path, command: str) -> None:
    broker = {} if command == "up" else {"broker_url": "redis://localhost"}
    data = tmp_path / "data"
    data.mkdir()
    (data / "maskloop.db").write_bytes(b"no database" * 1000)
    text = start(command, data, **broker).stderr
    assert "error: The database cannot be reached: check" in text
    assert "(file is not a database)" in text
    assert "Traceback" not in text


@contextmanager
def full(disk: Disk, _state: State) -> Iterator[None]:
    disk.fill()
    yield
    disk.free()


@contextmanager
def read_only(disk: Disk, state: State) -> Iterator[None]:
    def closed_and_read_only() -> bool:
        # Threads open the database again at any time.
        state.database.engine.dispose()
        return disk.set_read_only(on=True)

    eventually(closed_and_read_only)
    yield
    assert disk.set_read_only(on=False)


@pytest.mark.parametrize(("unwritable", "reason"), [(full, "is full: free space"), (read_only, "cannot be written")])
@pytest.mark.usefixtures("on_files")
def test_segmentation_continues_while_nothing_can_be_written(
    disk: Disk, make_settings: MakeSettings, bundle: Path, unwritable: Callable[[Disk, State], Any], reason: str
) -> None:
    image, other = encoded(picture()), encoded(picture(seed=1))
    large = other.ljust(IN_MEMORY_BYTES + 1, b"\0")
    with serve(make_settings(data_dir=disk.folder / "data")) as client:
        state: State = client.app_state["maskloop"]
        kept = client.post("/v1/images", content=image).json()["id"]
        assert client.get("/readyz").json()["storage"] is None
        with unwritable(disk, state), capture_logs() as lines:
            state.data_folder.check()
            calls = {
                "/v1/images": client.post("/v1/images", content=other),
                "mask": client.put(f"/v1/images/{kept}/mask", content=encoded(nearest(picture(), COLORS))),
                "/v1/models": client.post("/v1/models", content=zipped(bundle)),
                "batch": client.post("/v1/segment/batch", files=[("file", ("a.png", large))]),
            }
            for name, response in calls.items():
                assert (name, response.status_code) == (name, 507), response.text
                assert response.json()["type"] == PROGRAM
                assert f"The data folder data {reason}" in response.json()["detail"]
                assert str(disk.folder) not in response.text
            # A small part of a form needs no disk.
            assert client.post("/v1/segment/batch", files=[("file", ("a.png", other))]).json()["status"] == 200
            for query in ("", "?contribute=true"):
                response = client.post(f"/v1/segment{query}", content=other)
                assert (read(response.content) == nearest(picture(seed=1), COLORS)).all()
            assert response.headers["X-Image-Error"] == "storage-unwritable"
            assert "X-Image-Id" not in response.headers
            ready = client.get("/readyz")
            assert ready.status_code == 200
            assert f"The data folder data {reason}" in ready.json()["storage"]
            assert sample(state.metrics, "maskloop_storage_writable") == 0
        assert not [line for line in lines if "exception" in line or line["log_level"] == "critical"]
        # It recovers by itself.
        state.data_folder.check()
        assert client.get("/readyz").json()["storage"] is None
        assert sample(state.metrics, "maskloop_storage_writable") == 1
        assert client.post("/v1/images", content=other).status_code == 201
        assert "X-Image-Id" in client.post("/v1/segment?contribute=true", content=other).headers
        assert client.get("/v1/images").json()["images"][0]["bytes"] == len(other)


@pytest.mark.usefixtures("on_files")
def test_calls_that_write_only_to_the_database_name_the_full_folder(
    disk: Disk, make_settings: MakeSettings, other_bundle: Path
) -> None:
    with serve(make_settings(data_dir=disk.folder / "data", min_labelled_images=1)) as client:
        state: State = client.app_state["maskloop"]
        image, label = encoded(picture()), encoded(nearest(picture(), COLORS))
        image_id = client.post("/v1/images", content=image).json()["id"]
        for split in ("labelled", "val"):
            client.put(f"/v1/images/{image_id}/mask?split={split}", content=label)
        earlier, other = str(state.active_model.current_version), state.models.import_folder(other_bundle).version
        for version in (other, earlier):
            state.releases.activate(version, "test", None)
        write_judged_run(state, other)
        with full(disk, state):
            for method, path in (
                ("PUT", f"/v1/images/{image_id}/mask?split=labelled"),
                ("DELETE", f"/v1/images/{image_id}"),
                ("POST", f"/v1/models/{other}/activate"),
                ("POST", "/v1/models/rollback"),
                ("POST", "/v1/releases/1/release?reason=test"),
                ("POST", "/v1/releases/1/decline?reason=test"),
                ("POST", "/v1/runs/r1/repeat"),
                ("DELETE", "/v1/runs/r1"),
            ):
                response = client.request(method, path, content=label if method == "PUT" else b"")
                assert (path, response.status_code) == (path, 507), response.text
                assert "The data folder data is full: free space" in response.json()["detail"]
            assert client.get("/v1/retention").status_code == 200
        assert client.post("/v1/releases/1/decline?reason=test").status_code == 200
        assert client.delete("/v1/runs/r1").status_code == 200


def write_judged_run(state: State, candidate: str) -> None:
    """Record a run that can be repeated, and the release of its candidate, which waits for a person."""
    active = state.models.activation()
    assert active is not None
    with state.database.write() as session:
        session.add(Worker(id="w", can_train=True, pid=1, host="h"))
        session.add(Run(id="r1", number=1, status="judged", reason="manual", base_version=active.version))
        session.flush()
        session.get_one(Run, "r1").deletion_sequence = session.get_one(Run, "r1").image_sequence = 0
        session.add(RunLabel(run_id="r1", image_id="0" * 64, mask_sha256="0" * 64, split="labelled"))
        verdict = {"outcome": "undecided", "sentence": "It may be better."}
        values = {"base_version": active.version, "judged_against": active.id, "state": "asked", "reason": "test"}
        session.add(Release(run_id="r1", version=candidate, verdict=verdict, **values))
    folder = state.settings.data_dir / "runs" / "r1"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").touch()


def test_running_process_survives_a_full_disk(disk: Disk, bundle: Path) -> None:
    with running(bundle, disk.folder / "data") as server:
        disk.fill()
        for _ in range(2):
            status, _, body = server.ask("POST", "/v1/images", encoded(picture()))
            assert status == 507, body
            assert server.ask("POST", "/v1/segment", encoded(picture()))[0] == 200
        disk.free()
        assert server.ask("POST", "/v1/images", encoded(picture()))[0] == 201


@pytest.mark.usefixtures("on_files")
def test_unreachable_database_gets_503_and_segmentation_continues(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with serve(settings) as client:
        state: State = client.app_state["maskloop"]

        def replaced_by_a_folder() -> bool:
            # Threads open the database again at any time.
            state.database.engine.dispose()
            for file in settings.data_dir.glob("maskloop.db*"):
                file.unlink(missing_ok=True)
            with suppress(FileExistsError):
                (settings.data_dir / "maskloop.db").mkdir()
                state.database.engine.dispose()
                return True
            return False

        eventually(replaced_by_a_folder)
        response = client.get("/v1/images")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert response.json()["type"] == "urn:maskloop:problem:storage-failed"
        response = client.post("/v1/segment?contribute=true", content=encoded(picture()))
        assert (response.status_code, response.headers["X-Image-Error"]) == (200, "storage-failed")


def test_missing_table_is_a_fault_of_the_program(make_settings: MakeSettings) -> None:
    with serve(make_settings()) as client:
        state: State = client.app_state["maskloop"]
        with state.database.write() as session:
            session.connection().exec_driver_sql("ALTER TABLE images RENAME TO elsewhere")
        response = client.get("/v1/images")
        assert (response.status_code, response.json()["type"]) == (500, "urn:maskloop:problem:internal")


class Sqlite(Exception):  # noqa: N818 - as the driver's
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.sqlite_errorname = name


class Postgres(Exception):  # noqa: N818 - as the driver's
    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.sqlstate = state


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "full"), StorageUnwritable),
        (OSError(errno.EDQUOT, "full"), StorageUnwritable),
        (OSError(errno.ENOSPC, "full", "/elsewhere/x"), type(None)),
        (OSError(errno.EACCES, "denied", "/data/x"), StorageUnwritable),
        (FileExistsError(errno.EEXIST, "exists", "/data"), StorageUnwritable),
        (FileExistsError(errno.EEXIST, "exists", "/data/images/a.png"), type(None)),
        (NotADirectoryError(errno.ENOTDIR, "no folder", "/data/images/a.png"), type(None)),
        (FileExistsError(errno.EEXIST, "exists"), type(None)),
        (OSError(errno.EACCES, "denied", "/usr/bin/valkey-server"), type(None)),
        (ConnectionResetError(errno.ECONNRESET, "reset"), type(None)),
        (OperationalError("", {}, Sqlite("SQLITE_FULL")), StorageUnwritable),
        (OperationalError("", {}, Sqlite("SQLITE_IOERR_SHMSIZE")), StorageUnwritable),
        (OperationalError("", {}, Sqlite("SQLITE_IOERR_WRITE")), StorageUnwritable),
        (OperationalError("", {}, Sqlite("SQLITE_BUSY")), StorageFailed),
        # No such table.
        (OperationalError("", {}, Sqlite("SQLITE_ERROR")), type(None)),
        (DatabaseError("", {}, Sqlite("SQLITE_NOTADB")), StorageFailed),
        (OperationalError("", {}, Postgres("53100")), DatabaseUnwritable),
        (OperationalError("", {}, Postgres("40P01")), StorageFailed),
        (OperationalError("", {}, Postgres("25006")), DatabaseUnwritable),
        (OperationalError("", {}, Postgres("08006")), StorageFailed),
        (IntegrityError("", {}, Sqlite("SQLITE_CONSTRAINT")), type(None)),
        (ValueError(), type(None)),
    ],
)
def test_faults_of_the_storage_are_told_from_faults_of_the_program(error: Exception, kind: type) -> None:
    assert type(storage_fault(error, Path("/data"))) is kind


def test_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    # The permissions of root are never denied.
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.R_OK)
    fault = storage_fault(PermissionError(errno.EACCES, "Permission denied", str(path)), tmp_path)
    assert isinstance(fault, StorageFailed)
    assert fault.message.startswith(f"The file {path} cannot be read (Permission denied): give")


def test_full_database_of_another_server_is_no_problem_of_the_data_folder(make_settings: MakeSettings) -> None:
    with serve(make_settings()) as client:
        state: State = client.app_state["maskloop"]

        def fail(*_: object, **__: object) -> None:
            raise OperationalError("", {}, Postgres("53100"))

        event.listen(state.database.engine, "before_cursor_execute", fail)
        response = client.get("/v1/images")
        event.remove(state.database.engine, "before_cursor_execute", fail)
        assert (response.status_code, response.json()["type"]) == (507, PROGRAM)
        assert response.json()["detail"].startswith("The database is full")
        assert client.get("/readyz").json()["storage"] is None


def test_large_probes_are_rare_while_the_folder_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(data_folder, "write_probe", lambda _folder, size_bytes: sizes.append(size_bytes))
    folder = data_folder.DataFolder(tmp_path, Gauge("writable", "", registry=CollectorRegistry()))
    for _ in range(3):
        folder.check()
    folder.report(StorageUnwritable("full"))
    folder.check()
    folder.check()
    assert sizes == [2**20, 4096, 4096, 2**20, 4096]


def test_other_errors_pass_through() -> None:
    with pytest.raises(IntegrityError), storage_faults(Path("/data")):
        raise IntegrityError("", {}, Sqlite("SQLITE_CONSTRAINT"))
