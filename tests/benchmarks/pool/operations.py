"""Time what requests and runs do with a pool of a given size."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image as PillowImage
from sqlalchemy import text

from service.retention.expiry import Limit, Limits
from service.retention.operating_clock import OperatingClock
from service.retention.retention_sweep import Retention
from service.runs.leases.lease import claim
from service.runs.worker.snapshot import take_snapshot
from service.settings import Settings
from service.state import State, open_state
from service.storage.tables import Worker
from tests.benchmarks.pool.fill import IMAGE_BYTES, fill
from tests.service import postgresql
from tests.service.class_lists import list_of

UPLOADS, PAGES = 200, 50
CLASSES = list_of([f"class {i}" for i in range(21)])
PAGE = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Milliseconds, medians unless said otherwise; bytes of the database."""

    database: str
    rows: int
    fill_s: float
    upload_ms: float
    label_ms: float
    page_ms: float
    labelled_page_ms: float
    slowest_page_ms: float
    counts_ms: float
    due_ms: float
    start_ms: float
    snapshot_ms: float
    run_bytes: int
    """What a run adds to the database."""
    preview_ms: float
    """Of retention by bytes that half of the images exceed."""
    expired_a_second: float
    """Images that retention deletes, without files."""


def measure(kind: str, rows: int, folder: Path) -> Timings:
    """Fill a new pool on `sqlite` or `postgresql`, and time its operations."""
    url = postgresql.create_database(folder) if kind == "postgresql" else ""
    settings = Settings(data_dir=folder, database_url=url, retrain_after_images=5 * UPLOADS, heartbeat_s=3600)
    with _opened(settings) as state:
        start = time.perf_counter()
        fill(state, rows)
        fill_s = time.perf_counter() - start
        images = [_png(number) for number in range(UPLOADS)]
        uploads = [_ms(partial(_upload, state, data)) for data in images]
        mask = _png(0, ids=True)
        ids = [image.id for image in state.images.page(limit=20).images]
        labels = [_ms(partial(state.images.put_mask, i, mask, classes=CLASSES, split="labelled")) for i in ids]
        cursors = np.random.default_rng(0).integers(PAGE, rows, PAGES)
        pages = [_ms(partial(state.images.page, limit=PAGE, cursor=str(c))) for c in cursors]
        labelled = [_ms(lambda: state.images.page(which="labelled", limit=PAGE)) for _ in range(10)]
        counts = [_ms(state.images.counts) for _ in range(20)]
        due = [_ms(state.retrain_policy.consider) for _ in range(20)]
        before = database_bytes(state)
        start_ms = _ms(lambda: state.retrain_policy.start("manual"))
        lease = claim(state.database, state.runs.list(1)[0].id)
        if lease is None:
            raise RuntimeError("the run cannot be claimed")
        snapshot_ms = _ms(lambda: take_snapshot(lease))
        run_bytes = database_bytes(state) - before
        half = Limits(images=Limit(bytes=rows * IMAGE_BYTES // 2))
        preview_ms = _ms(lambda: state.retention.preview(half))
        return Timings(
            database=kind,
            rows=rows,
            fill_s=fill_s,
            upload_ms=median(uploads),
            label_ms=median(labels),
            page_ms=median(pages),
            labelled_page_ms=median(labelled),
            slowest_page_ms=max(pages),
            counts_ms=median(counts),
            due_ms=median(due),
            start_ms=start_ms,
            snapshot_ms=snapshot_ms,
            run_bytes=run_bytes,
            preview_ms=preview_ms,
            expired_a_second=_expired_a_second(state),
        )


def _expired_a_second(state: State) -> float:
    settings = state.settings.model_copy(update={"keep_images_bytes": 1})
    deletion = replace(state.deletion, settings=settings)
    before = state.images.counts().unlabelled
    seconds = _ms(Retention(deletion, state.images, OperatingClock(state.database)).sweep) / 1000
    return (before - state.images.counts().unlabelled) / seconds


def database_bytes(state: State) -> int:
    """Size of the database on disk."""
    with state.database.read() as session:
        if state.database.engine.dialect.name == "postgresql":
            return int(session.scalar(text("SELECT pg_database_size(current_database())")) or 0)
    return sum(file.stat().st_size for file in state.settings.data_dir.glob("maskloop.db*"))


@contextmanager
def _opened(settings: Settings) -> Iterator[State]:
    state = open_state(settings)
    state.models.ensure_start_model()
    with state.database.write() as session:
        session.add(Worker(id="benchmark", can_train=True, pid=1, host="benchmark"))
    try:
        yield state
    finally:
        state.close()


def _upload(state: State, data: bytes) -> None:
    image, _ = state.images.add(data)
    state.retrain_policy.consider_image(image.sequence)


def _ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def _png(seed: int, *, ids: bool = False) -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 2, (48, 64), np.uint8) if ids else rng.integers(0, 255, (48, 64, 3), np.uint8)
    sink = io.BytesIO()
    PillowImage.fromarray(pixels).save(sink, format="PNG")
    return sink.getvalue()
