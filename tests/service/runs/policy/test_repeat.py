"""A run is repeated with the same images, masks and recipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.__main__ import main
from service.errors import RunNotRepeatable
from service.state import State
from service.storage.tables import Run, RunLabel
from tests.service.class_lists import TINY
from tests.service.conftest import encoded, serve
from tests.service.runs.conftest import BAD, fill, perform_run, register_worker, write_dataset
from tests.service.tiny_bundle import COLORS, nearest, picture


@pytest.fixture
def api(loop: State) -> Iterator[TestClient]:
    with serve(loop.settings) as client:
        yield client


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def recipe(loop: State, run_id: str) -> str:
    folder = loop.settings.data_dir.absolute() / "runs" / run_id
    return (folder / "recipe.toml").read_text().replace(str(folder), "RUN")


def label(loop: State, image_id: str, seed: int) -> None:
    mask = encoded(nearest(picture(seed=seed), COLORS))
    loop.images.put_mask(image_id, mask, classes=TINY)


def finished(loop: State, dataset: Path) -> tuple[Run, list[str]]:
    """A finished run, and the ids of its images: labelled, val, unlabelled. Keeps its data set."""
    ids = fill(loop)
    register_worker(loop)
    run = loop.retrain_policy.start("manual")
    write_dataset(loop, run.id, dataset)
    return perform_run(loop, run.id), ids


def test_repeated_run_has_the_same_data_set_and_recipe_file_by_file(
    api: TestClient, loop: State, tmp_path: Path
) -> None:
    first, ids = finished(loop, tmp_path / "first")
    # Since then, images were added, and labels added and replaced.
    fill(loop, seed=1)
    label(loop, ids[0], seed=70)
    label(loop, ids[2], seed=71)
    label(loop, ids[-1], seed=72)
    answer = api.post(f"/v1/runs/{first.id}/repeat")
    assert answer.status_code == 201
    again = answer.json()
    assert answer.headers["Location"] == f"/v1/runs/{again['id']}"
    assert (again["reason"], again["repeats"], again["base_version"]) == ("repeat", first.id, BAD)
    write_dataset(loop, again["id"], tmp_path / "second")
    second = perform_run(loop, again["id"])
    assert second.finished_at is not None
    assert second.status != "failed"
    assert files(tmp_path / "second") == files(tmp_path / "first")
    assert recipe(loop, second.id) == recipe(loop, first.id)
    assert (second.image_sequence, second.label_sequence) == (first.image_sequence, first.label_sequence)
    assert second.unlabelled == first.unlabelled == 3
    snapshot = [(label.image_id, label.mask_sha256, label.split) for label in loop.runs.labels(first.id)]
    assert [(label.image_id, label.mask_sha256, label.split) for label in loop.runs.labels(second.id)] == snapshot


def test_run_whose_images_were_deleted_is_repeated_only_on_request(
    api: TestClient, loop: State, tmp_path: Path
) -> None:
    first, ids = finished(loop, tmp_path / "first")
    deleted = loop.images.read(ids[0])
    for image_id in (ids[0], ids[-1]):
        api.delete(f"/v1/images/{image_id}")
    # The same bytes are a new image of the pool.
    loop.images.add(deleted)
    refused = api.post(f"/v1/runs/{first.id}/repeat")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:maskloop:problem:images-deleted")
    assert "deleted since: 2" in refused.json()["detail"]
    again = api.post(f"/v1/runs/{first.id}/repeat?without_deleted=true").json()
    write_dataset(loop, again["id"], tmp_path / "second")
    before, after = files(tmp_path / "first"), files(tmp_path / "second")
    assert {name for name in before.keys() - after.keys() if not name.startswith("splits/")} == {
        f"images/{ids[0]}.png",
        f"images/{ids[-1]}.png",
        f"masks/{ids[0]}.png",
    }
    assert not after.keys() - before.keys()
    assert loop.runs.get(again["id"]).unlabelled == 2
    assert perform_run(loop, again["id"]).status != "failed"
    # The repeated run can itself be repeated exactly.
    register_worker(loop)
    assert api.post(f"/v1/runs/{again['id']}/repeat").status_code == 201


def test_images_deleted_before_the_run_do_not_matter(loop: State, tmp_path: Path) -> None:
    loop.images.delete(fill(loop, labelled=0, val=0, unlabelled=1, seed=9)[0])
    first, _ = finished(loop, tmp_path / "first")
    later = fill(loop, labelled=0, val=0, unlabelled=1, seed=8)[0]
    loop.images.delete(later)
    assert loop.retrain_policy.repeat(first.id).repeats == first.id


def test_repeated_run_leaves_new_images_to_the_next(loop: State, tmp_path: Path) -> None:
    first, _ = finished(loop, tmp_path / "first")
    fill(loop, labelled=0, val=0, unlabelled=2, seed=1)
    cancelled = loop.runs.request_cancel(loop.retrain_policy.repeat(first.id).id)
    assert cancelled.image_sequence is None
    assert loop.retrain_policy.next_run().new_images == 2
    assert perform_run(loop, loop.retrain_policy.repeat(first.id).id).status != "failed"
    assert loop.retrain_policy.next_run().new_images == 2


def test_pool_may_have_too_few_labels_for_a_run_of_its_own(loop: State, tmp_path: Path) -> None:
    first, ids = finished(loop, tmp_path / "first")
    for image_id in ids[:1]:
        loop.images.delete(image_id)
    run = loop.retrain_policy.repeat(first.id, without_deleted=True)
    assert run.status == "queued"


def test_run_without_its_records_cannot_be_repeated(api: TestClient, loop: State, tmp_path: Path) -> None:
    fill(loop)
    register_worker(loop)
    waiting = loop.retrain_policy.start("manual")
    loop.runs.request_cancel(waiting.id)
    refused = api.post(f"/v1/runs/{waiting.id}/repeat")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:maskloop:problem:run-not-repeatable")
    first = perform_run(loop, loop.retrain_policy.start("manual").id)
    file = loop.settings.data_dir / "runs" / first.id / "recipe.toml"
    text = file.read_bytes()
    file.unlink()
    with pytest.raises(RunNotRepeatable, match="recipe"):
        loop.retrain_policy.repeat(first.id)
    file.write_bytes(text)
    with loop.database.write() as session:
        session.execute(update(RunLabel).values(mask_sha256=None))
    with pytest.raises(RunNotRepeatable, match="did not record which masks"):
        loop.retrain_policy.repeat(first.id)
    assert api.post("/v1/runs/unknown/repeat").status_code == 404


def test_command_line_repeats_a_run(loop: State, tmp_path: Path) -> None:
    first, ids = finished(loop, tmp_path / "first")
    loop.images.delete(ids[-1])
    command = [sys.executable, "-m", "service", "repeat", "--data-dir", str(loop.settings.data_dir), first.id]
    stores = {name: getattr(loop.settings, name) for name in ("database_url", "storage_url")}
    environment = os.environ | {f"MASKLOOP_{name.upper()}": url for name, url in stores.items()}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "--without-deleted" in refused.stderr
    done = subprocess.run(
        [*command, "--without-deleted"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    (run,) = loop.runs.list(1)
    assert "not enqueued" not in done.stderr
    assert (done.stdout, run.reason, run.repeats) == (f"{run.id}\n", "repeat", first.id)


def test_command_line_names_a_folder_without_a_database_and_creates_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MASKLOOP_DATABASE_URL", raising=False)
    assert main(["repeat", "--data-dir", str(tmp_path / "missing"), "RUN"]) == 1
    assert "missing contains no database: pass the --data-dir" in capsys.readouterr().err
    assert not (tmp_path / "missing").exists()
