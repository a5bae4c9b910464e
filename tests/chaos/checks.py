"""Checks of a quiet service: nothing acknowledged is lost, nothing deleted is left, and every table agrees."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.models.bundle import read_bundle
from service.runs.worker.deletion_sweep import COPIES, PICTURE
from service.storage.blob_store import relative_path
from service.storage.database import Database
from service.storage.tables import (
    ACTIVE,
    UNSERVABLE,
    Activation,
    DeletedImage,
    Image,
    Model,
    Pool,
    Release,
    Run,
    RunLabel,
)
from tests.chaos.ledger import UNLABELLED, Ledger, digest
from tests.chaos.pictures import read_mask
from tests.chaos.process_list import Process


def check_images(session: Session, blobs: Path, ledger: Ledger) -> Iterator[str]:
    """Compare rows and files with what clients know."""
    present = set()
    for image in session.scalars(select(Image)):
        present.add(image.id)
        data = _read(blobs / relative_path("images", image.id))
        if data is None or hashlib.sha256(data).hexdigest() != image.id:
            yield f"image {image.id}: its file is {'missing' if data is None else 'damaged'}"
        state = UNLABELLED
        if image.mask_sha256 is not None:
            mask = _read(blobs / relative_path("masks", image.mask_sha256))
            state = digest(read_mask(mask).tobytes()) if mask is not None else "without its mask"
        ledger.observe(image.id, state)
    for image_id in set(ledger.entries) - present:
        ledger.observe(image_id, "absent")


def check_counters(session: Session) -> Iterator[str]:
    """Count the pool again."""
    pool = session.get_one(Pool, 1)
    splits = Counter(session.scalars(select(Image.split)).all())
    counted = {
        "unlabelled": splits[None],
        "labelled": splits["labelled"],
        "val": splits["val"],
        "bytes": session.scalar(select(func.sum(Image.bytes))) or 0,
    }
    kept = {name: getattr(pool, name) for name in counted}
    if kept != counted:
        yield f"the pool's counters are {kept}, and {counted} was counted"
    newest = session.scalar(select(func.max(Image.sequence))) or 0
    if newest > pool.image_sequence:
        yield f"an image has the sequence {newest}, above {pool.image_sequence}"


def check_deletions(session: Session, data_dir: Path) -> Iterator[str]:
    """Look for what is left of deleted images, and for files without a row."""
    kept = set(session.scalars(select(Image.id)))
    masks = set(session.scalars(select(Image.mask_sha256).where(Image.mask_sha256.is_not(None))))
    in_runs = select(RunLabel.mask_sha256).where(RunLabel.image_id.in_(select(Image.id)))
    masks |= set(session.scalars(in_runs))
    for collection, known in (("images", kept), ("masks", masks)):
        for path in (data_dir / "blobs" / collection).rglob("*"):
            if path.is_file() and path.name not in known:
                yield f"{path.relative_to(data_dir)} belongs to no image"
    deleted = session.scalars(select(DeletedImage).where(DeletedImage.completed_at.is_(None))).all()
    yield from (f"the deletion of {each.image_id} is not completed" for each in deleted)
    gone = set(session.scalars(select(DeletedImage.image_id))) - kept
    for run_id in session.scalars(select(RunLabel.run_id).where(RunLabel.image_id.in_(gone)).distinct()):
        report = data_dir / "runs" / run_id / "train" / "report.html"
        # What remains is `data:,`.
        if report.exists() and PICTURE.search(report.read_bytes()):
            yield f"the report of run {run_id} shows a deleted image"


def check_runs(session: Session) -> Iterator[str]:
    """Check that every run has ended, with a reason or a release."""
    released = Counter(session.scalars(select(Release.run_id)))
    for run in session.scalars(select(Run)):
        if run.status in ACTIVE:
            yield f"run {run.id} is {run.status} ({run.phase}, attempt {run.attempts})"
        if run.status == "failed" and not run.error:
            yield f"run {run.id} failed without a reason"
        if released[run.id] != (run.status == "judged"):
            yield f"run {run.id} is {run.status} and has {released[run.id]} releases"


def check_models(session: Session, data_dir: Path) -> Iterator[str]:
    """Check the activations, and the bundle of the active model."""
    models = {model.version: model for model in session.scalars(select(Model))}
    activations = session.scalars(select(Activation).order_by(Activation.id)).all()
    reasons = Counter(each.reason for each in activations if each.reason.startswith("run "))
    yield from (f"`{reason}` activated {count} times" for reason, count in reasons.items() if count > 1)
    serving = session.scalars(select(Release).where(Release.state == "serving")).all()
    effective = [each for each in activations if models[each.version].state not in UNSERVABLE]
    if not effective:
        yield "no model is active"
        return
    newest = effective[-1]
    for release in serving:
        if release.activation_id != newest.id:
            yield f"release {release.id} is serving, but activation {newest.id} is in effect"
    for model in models.values():
        try:
            read_bundle(data_dir / model.path)
        except Exception as error:
            yield f"model {model.version} ({model.state}) is damaged: {error}"


def check_files(data_dir: Path) -> Iterator[str]:
    """Look for temporary files, and for copies that only an active run may have."""
    runs, models, blobs = data_dir / "runs", data_dir / "models", data_dir / "blobs"
    temporary = [*blobs.rglob(".*"), *(blobs / "unconfirmed").glob("*/*")]
    temporary += [*models.glob(".*"), *runs.glob("*/.*"), *(data_dir / "tmp").glob("*")]
    copies = [path for name in (*COPIES, "attempt-*") for path in runs.glob(f"*/{name}")]
    yield from (f"{path.relative_to(data_dir)} is left" for path in (*temporary, *copies))


def check_processes(processes: list[Process]) -> Iterator[str]:
    """Check that the expected processes run, and no others."""
    counts = Counter(process.role for process in processes)
    expected = Counter(dict.fromkeys(("supervisor", "api", "worker 1", "worker 2", "broker"), 1))
    if counts != expected:
        yield f"processes: {dict(counts)}"


def check_history(session: Session, seen: dict[str, dict[object, object]]) -> Iterator[str]:
    """Compare ended runs and activations, which must never change or vanish, with what was `seen` before."""
    now: dict[str, dict[object, object]] = {
        "run": {run.id: (run.status, run.error) for run in session.scalars(select(Run)) if run.status not in ACTIVE},
        "activation": {row.id: (row.version, row.reason) for row in session.scalars(select(Activation))},
    }
    for what, rows in seen.items():
        changed = {name: (value, now[what].get(name)) for name, value in rows.items() if now[what].get(name) != value}
        yield from (f"{what} {name} was {before}, and is {after}" for name, (before, after) in changed.items())
    seen.update(now)


def check_all(database: Database, data_dir: Path, ledger: Ledger, seen: dict[str, dict[object, object]]) -> list[str]:
    """Return all violations of a quiet service."""
    with database.read() as session:
        return [
            *check_images(session, data_dir / "blobs", ledger),
            *check_counters(session),
            *check_deletions(session, data_dir),
            *check_runs(session),
            *check_models(session, data_dir),
            *check_history(session, seen),
            *check_files(data_dir),
        ]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
