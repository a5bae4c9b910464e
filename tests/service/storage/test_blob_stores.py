"""What every storage of blobs does: files of a folder, and objects of an S3 server."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.errors import FileLost, ImageNotFound, StorageFailed
from service.runs.worker.deletion_sweep import sweep_deletions
from service.state import State, open_state
from service.storage import local_blobs, object_store
from service.storage.blob_store import BlobStore, sha256_of
from service.storage.local_blobs import LocalBlobs
from service.storage.remote_blobs import RemoteBlobs
from tests.service import postgresql
from tests.service.class_lists import TINY
from tests.service.conftest import MakeSettings, encoded
from tests.service.runs.conftest import fill, perform_run, register_worker, write_dataset
from tests.service.s3_server import s3_bucket
from tests.service.tiny_bundle import picture


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as monkeypatch, s3_bucket(monkeypatch) as url:
        yield url


@pytest.fixture(params=["files", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "files":
        return LocalBlobs(tmp_path / "blobs")
    return RemoteBlobs(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def put_hello(blobs: BlobStore) -> str:
    sha256 = hashlib.sha256(b"hello").hexdigest()
    blobs.put("images", sha256, b"hello")
    return sha256


def test_blobs_are_named_by_their_content(blobs: BlobStore, tmp_path: Path) -> None:
    sha256 = put_hello(blobs)
    assert put_hello(blobs) == sha256
    assert blobs.read("images", sha256) == b"hello"
    blobs.copy("images", sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"hello"


def test_missing_blob_is_an_error_except_for_deletion(blobs: BlobStore, tmp_path: Path) -> None:
    sha256 = put_hello(blobs)
    blobs.delete("images", sha256)
    blobs.delete("images", sha256)
    with pytest.raises(FileNotFoundError):
        blobs.read("images", sha256)
    with pytest.raises(FileNotFoundError):
        blobs.read("masks", sha256)
    with pytest.raises(FileNotFoundError):
        blobs.copy("images", sha256, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "/" + "0" * 63])
def test_blob_name_that_is_no_sha256_is_rejected(blobs: BlobStore, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        blobs.read("images", name)


def test_blob_put_by_many_threads_is_whole(blobs: BlobStore) -> None:
    data = bytes(range(256)) * 4000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: blobs.put("images", sha256_of(data), data), range(16)))
    assert blobs.read("images", sha256_of(data)) == data


def test_files_of_a_folder_leave_no_temporary_file(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    sha256 = put_hello(blobs)
    blobs.confirm("images", sha256)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [sha256]


def test_blob_that_another_request_stores_and_confirms_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, write = LocalBlobs(tmp_path), local_blobs._write_flushed

    def write_while_another_confirms(file: Path, data: bytes) -> None:
        write(file, data)
        monkeypatch.setattr(local_blobs, "_write_flushed", write)
        blobs.confirm("images", put_hello(blobs))

    monkeypatch.setattr(local_blobs, "_write_flushed", write_while_another_confirms)
    sha256 = put_hello(blobs)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [sha256]


@pytest.mark.parametrize("url", ["nothing://bucket/folder", "s3fs://"])
def test_unusable_url_gets_an_error_with_a_remedy(url: str) -> None:
    with pytest.raises(StorageFailed, match=r"MASKLOOP_STORAGE_URL.*uv pip install"):
        RemoteBlobs(url)


def test_server_that_does_not_answer_gets_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_bucket(monkeypatch) as url:
        blobs = RemoteBlobs(url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageFailed, match=r"does not answer.*MASKLOOP_STORAGE_URL"):
        put_hello(blobs)


def test_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(object_store.S3_CLIENT, "read_timeout", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as hanging, s3_bucket(monkeypatch) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{hanging.getsockname()[1]}")
        with pytest.raises(StorageFailed, match="Read timeout"):
            put_hello(RemoteBlobs(url))


def test_run_waits_for_an_object_store_that_does_not_answer(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_bucket(monkeypatch) as url:
        state = open_state(make_settings(storage_url=url, min_labelled_images=2))
        state.models.ensure_start_model()
        fill(state)
        register_worker(state)
        run = state.retrain_policy.start("manual")
    ended = perform_run(state, run.id)
    assert (ended.status, ended.attempts) == ("queued", 1)
    assert "does not answer" in state.runs.events(run.id)[-1].event["reason"]
    state.close()


def test_missing_bucket_gets_an_error_with_a_remedy(bucket: str) -> None:
    blobs = RemoteBlobs(f"{bucket.rpartition('/')[0]}-missing/maskloop")
    with pytest.raises(StorageFailed, match="create the bucket of MASKLOOP_STORAGE_URL"):
        put_hello(blobs)


@pytest.fixture
def state(bucket: str, make_settings: MakeSettings, tmp_path: Path) -> Iterator[State]:
    """The stores on PostgreSQL and S3."""
    database, storage = postgresql.create_database(tmp_path), f"{bucket}/{tmp_path.name}"
    opened = open_state(make_settings(database_url=database, storage_url=storage, min_labelled_images=2))
    opened.models.ensure_start_model()
    yield opened
    opened.close()
    postgresql.drop_databases()


def test_pool_on_postgresql_and_s3(state: State, tmp_path: Path) -> None:
    ids = fill(state, val=1)
    register_worker(state)
    run = state.retrain_policy.start("manual")
    write_dataset(state, run.id, tmp_path / "set")
    assert {path.stem for path in (tmp_path / "set" / "images").iterdir()} == set(ids)
    assert (tmp_path / "set" / "masks" / f"{ids[0]}.png").read_bytes() == state.images.read_mask(ids[0])
    state.images.put_mask(ids[0], encoded(np.full((30, 40), 2, np.uint8)), classes=TINY)
    state.images.delete(ids[0])
    state.runs.request_cancel(run.id)
    assert sweep_deletions(state.database, state.images, state.settings.data_dir / "runs") == 1
    with pytest.raises(ImageNotFound):
        state.images.read(ids[0])
    assert state.images.read(ids[1]) == encoded(picture(seed=1))


def test_bundle_is_fetched_where_its_folder_is_missing(
    state: State, make_settings: MakeSettings, tmp_path: Path
) -> None:
    activated = state.models.activated()
    assert activated is not None
    settings = make_settings(
        data_dir=tmp_path / "elsewhere",
        database_url=state.settings.database_url,
        storage_url=state.settings.storage_url,
    )
    other = open_state(settings)
    assert other.models.bundle(activated.version).manifest == state.models.bundle(activated.version).manifest
    assert (settings.data_dir / "models" / activated.version / "model.onnx").exists()
    other.close()


def test_image_lost_in_the_storage_gets_an_error_with_a_remedy(state: State) -> None:
    image_id = state.images.add(encoded(picture()))[0].id
    RemoteBlobs(state.settings.storage_url).delete("images", image_id)
    with pytest.raises(FileLost, match="POST the image"):
        state.images.read(image_id)
