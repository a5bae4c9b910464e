"""A real service with a tiny real model: the app, its database, its threads."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from fastapi.testclient import TestClient
from PIL import Image

from service.api.app import create_app
from service.metrics import Metrics
from service.settings import Settings
from service.state import State, open_state
from service.storage.blob_store import Collection, relative_path
from tests.service import postgresql, s3_server
from tests.service.tiny_bundle import COLORS, write_bundle

MakeSettings = Callable[..., Settings]
# Has every scope. `serve` sends it unless a test sets `api_key` itself.
ON_SERVERS = bool(os.environ.get("TEST_SERVERS"))
TEST_KEY = "key-of-the-tests-0123456789"


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """Log tracebacks without local variables. structlog's default renders them with rich: half a second for each."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


@pytest.fixture(autouse=True)
def dropped_databases() -> Iterator[None]:
    """Drop the databases of a test after it, except those of fixtures with a wider scope."""
    earlier = postgresql.databases()
    yield
    postgresql.drop_databases(keep=earlier)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def other_bundle(tmp_path: Path) -> Path:
    """A bundle with the classes in the opposite order: almost every pixel gets another id."""
    return write_bundle(tmp_path / "other", version="20260102T000000-bbbbbbbb", colors=COLORS[::-1])


@pytest.fixture
def make_settings(tmp_path: Path, bundle: Path) -> MakeSettings:
    return settings_maker(tmp_path, bundle)


def settings_maker(tmp_path: Path, bundle: Path) -> MakeSettings:
    """Return a function that builds the settings of a service with its data in this folder."""

    def make(**changes: Any) -> Settings:
        defaults: dict[str, Any] = {
            "data_dir": tmp_path / "data",
            "model": str(bundle),
            "api_key": TEST_KEY,
            "model_poll_s": 0.05,
            "inference_threads": 1,
            "retrain_after_images": 1_000_000,
            "retrain_after_labels": 0,
            # Only tests of the wait limit may depend on the speed of the machine.
            "max_wait_s": 60.0,
        }
        return Settings(**(defaults | server_settings(changes.get("data_dir", defaults["data_dir"])) | changes))

    return make


def server_settings(data_dir: Path) -> dict[str, str]:
    """Settings that make the stores of a test use PostgreSQL and S3, if `TEST_SERVERS` is set (make test-servers)."""
    if not ON_SERVERS:
        return {}
    prefix = hashlib.sha256(str(data_dir).encode()).hexdigest()[:16]
    return {
        "database_url": postgresql.create_database(data_dir),
        "storage_url": f"{s3_server.shared_bucket()}/{prefix}",
    }


@pytest.fixture
def on_files() -> None:
    """Skip a test that looks at files of the data folder if the stores use servers."""
    if ON_SERVERS:
        pytest.skip("it looks at files of the data folder")


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
def state(settings: Settings) -> Iterator[State]:
    """The stores, without a loaded model."""
    opened = open_state(settings)
    yield opened
    opened.close()


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A client of an app that is ready."""
    with serve(settings) as ready:
        yield ready


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """As `client`, shared by the tests of a module. Only for tests that do not depend on earlier requests."""
    folder = tmp_path_factory.mktemp("shared")
    with serve(settings_maker(folder, write_bundle(folder / "bundle"))()) as ready:
        yield ready


def serve(settings: Settings) -> TestClient:
    """A client that sends `TEST_KEY` if the settings have it. Its context is the app's lifespan; the model is ready."""

    class Ready(TestClient):
        def __enter__(self) -> Ready:
            super().__enter__()
            eventually(lambda: self.get("/readyz").status_code == 200)
            return self

    headers = {"X-API-Key": TEST_KEY} if settings.api_key.get_secret_value() == TEST_KEY else {}
    return Ready(create_app(settings), raise_server_exceptions=False, headers=headers)


def blob_file(state: State, collection: Collection, sha256: str | None) -> Path:
    """Return the file of an image or a mask, which may not exist."""
    if ON_SERVERS:
        pytest.skip("it looks at files of the data folder")
    return state.settings.data_dir / "blobs" / relative_path(collection, str(sha256))


def eventually(condition: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Wait until a condition is true; fail after `within_s` seconds."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not within {within_s} s"
        time.sleep(0.02)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return one value as Prometheus would read it; None: there is no such series."""
    return metrics.registry.get_sample_value(name, labels)


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    """Encode an image, an array or a PIL image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    sink = io.BytesIO()
    image.save(sink, format=kind, **options)
    return sink.getvalue()


def read(data: bytes) -> np.ndarray[Any, Any]:
    """Decode an image to an array; palette indices stay indices."""
    return np.asarray(Image.open(io.BytesIO(data)))
