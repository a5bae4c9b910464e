"""Deletion of models and of runs' files: what is refused, what stays, and what an interrupted one leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from service.errors import BundleInvalid, ModelNotServable, NotDeletable, RunNotRepeatable, StartUnusable
from service.retention.deletion import GRACE_S
from service.runs.policy.start_point import find_start
from service.settings import Settings
from service.state import State, open_state
from service.storage.analysis_tables import AnalysedDay, AnalysedModel, DriftTest, ImageAnalysis
from service.storage.tables import ACTIVE, Model, ReleaseState, Run, utc_now
from tests.service.conftest import encoded, serve
from tests.service.releases.releasing import release_version
from tests.service.runs.conftest import (
    BAD,
    GOOD,
    RECIPE,
    SteppedClock,
    fill,
    finished_run,
    perform_run,
    write_version,
)
from tests.service.tiny_bundle import COLORS, picture, zipped

OTHER = "20260103T000000-other000"


@pytest.fixture
def api(loop: State) -> Iterator[TestClient]:
    with serve(loop.settings) as client:
        yield client


@pytest.fixture
def other(loop: State, tmp_path: Path) -> Path:
    """A third version, which is not in use."""
    bundle = write_version(tmp_path, OTHER)
    loop.models.import_folder(bundle)
    return bundle


def end_grace(state: State, clock: SteppedClock) -> None:
    """Let a worker sweep until the files of deleted models are gone."""
    for _ in range(2):
        state.retention.sweep()
        clock.step(GRACE_S)
    state.retention.sweep()


def stored_files(state: State, version: str) -> list[str]:
    """Names of the files of a bundle, on disk and in the object store."""
    names = [path.name for path in (state.settings.data_dir / "models").glob(f"{version}/*")]
    mirror = state.models._mirror
    if mirror is not None and mirror._files.exists(f"{mirror._root}/{version}"):
        names += mirror._files.ls(f"{mirror._root}/{version}", detail=False)
    return names


def test_model_that_is_not_in_use_is_deleted(loop: State, clock: SteppedClock, api: TestClient, other: Path) -> None:
    before = api.get(f"/v1/models/{OTHER}").json()
    gone = api.delete(f"/v1/models/{OTHER}")
    assert gone.status_code == 200, gone.text
    assert (gone.json()["state"], gone.json()["deletion_reason"]) == ("deleted", "requested")
    assert loop.models.get(OTHER).deleted_by == "configured"
    assert api.delete(f"/v1/models/{OTHER}").json() == gone.json()
    assert stored_files(loop, OTHER), "a request may be loading it"
    end_grace(loop, clock)
    assert not stored_files(loop, OTHER)
    assert not list((loop.settings.data_dir / "models").glob(".*"))
    # The record and the manifest stay.
    after = api.get(f"/v1/models/{OTHER}").json()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"state", "deleted_at", "deletion_reason"}
    assert api.get(f"/v1/models/{OTHER}/provenance").json()["bundle"]["recipe"] == RECIPE
    assert OTHER not in {each["version"] for each in api.get("/v1/models").json()["models"]}
    assert OTHER in {each["version"] for each in api.get("/v1/models?deleted=true").json()["models"]}


def test_deleted_model_cannot_be_used(loop: State, api: TestClient, other: Path) -> None:
    image = encoded(picture())
    assert api.post(f"/v1/segment?model={OTHER}", content=image).status_code == 200
    api.delete(f"/v1/models/{OTHER}")
    for path, body in ((f"/v1/segment?model={OTHER}", image), (f"/v1/models/{OTHER}/activate?reason=x", b"")):
        answer = api.post(path, content=body)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:maskloop:problem:model-not-servable")
        assert f"{OTHER} was deleted (requested, " in answer.json()["detail"]
    with pytest.raises(StartUnusable, match="was deleted"):
        find_start(loop.models, OTHER)
    # A process that had begun to load it must not bring it back.
    loop.models.mark(OTHER, "failed", error="missing file")
    assert loop.models.get(OTHER).state == "deleted"
    index = api.post("/v2/repository/index").json()
    assert {each["reason"] for each in index if each["name"] == "seg" and each["state"] == "UNAVAILABLE"} == {"deleted"}


@pytest.mark.parametrize("files_gone", [False, True])
def test_deleted_version_can_be_uploaded_again(
    loop: State, clock: SteppedClock, api: TestClient, other: Path, *, files_gone: bool
) -> None:
    loop.deletion.delete_model(OTHER, "age")
    if files_gone:
        end_grace(loop, clock)
    with pytest.raises(BundleInvalid, match="exists with other files"):
        loop.models.import_folder(write_version(other.parent / "changed", OTHER, colors=COLORS[::-1]))
    uploaded = api.post("/v1/models", content=zipped(other))
    assert uploaded.status_code == 201, uploaded.text
    assert (uploaded.json()["state"], uploaded.json()["deleted_at"]) == ("ready", None)
    end_grace(loop, clock)
    assert api.post(f"/v1/models/{OTHER}/activate", params={"wait_s": 60}).status_code == 200
    assert "model.onnx" in stored_files(loop, OTHER)


def test_interrupted_deletion_is_continued_by_another_process(
    loop: State, loop_settings: Callable[..., Settings], clock: SteppedClock, other: Path
) -> None:
    loop.deletion.delete_model(OTHER, "bytes")
    (loop.settings.data_dir / "models" / ".deleted-by-a-killed-process").mkdir()
    worker = open_state(loop_settings(), clock=clock)
    end_grace(worker, clock)
    assert not stored_files(loop, OTHER)
    assert not list((loop.settings.data_dir / "models").glob(".*"))
    assert loop.models.get(OTHER).files_deleted_at is not None
    worker.close()


def test_copy_on_another_machine_is_deleted(loop: State, clock: SteppedClock, other: Path) -> None:
    loop.deletion.delete_model(OTHER, "requested")
    end_grace(loop, clock)
    copy = loop.settings.data_dir / "models" / OTHER
    copy.mkdir()
    loop.models.deleted.delete_leftovers()
    assert not copy.exists()


def test_analyses_of_a_deleted_model_are_deleted(
    loop: State, clock: SteppedClock, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.analyses.analysed_range.CHUNK", 2)
    day = utc_now().date()
    with loop.database.write() as session:
        for version in (BAD, OTHER):
            session.add(AnalysedModel(version=version, dimensions=3, oldest=1, newest=5))
            session.add(AnalysedDay(version=version, day=day, images=5, confidence=1.0, uncertainty=0.0, areas=[]))
            for number in range(1, 6):
                row = ImageAnalysis(version=version, sequence=number, confidence=1.0, uncertainty=0.0, areas=[])
                session.add(row)
            test = {"newest": 5, "images": 5, "reference_images": 5, "mmd2": 0.0, "p_value": 1.0, "alarm": False}
            session.add(DriftTest(version=version, **test))
    for version in (BAD, OTHER):
        loop.vectors.embeddings(version, 3).write([1], np.ones((1, 3)))
    loop.deletion.delete_model(OTHER, "age")
    end_grace(loop, clock)
    with loop.database.read() as session:
        for table in (AnalysedModel, AnalysedDay, ImageAnalysis, DriftTest):
            counts = dict(session.execute(select(table.version, func.count()).group_by(table.version)).all())
            assert set(counts) == {BAD}
    assert [path.name for path in (loop.settings.data_dir / "embeddings").iterdir()] == [f"{BAD}.3.f16"]


def test_models_in_use_are_not_deleted(loop: State, api: TestClient, good: Path, other: Path) -> None:
    loop.models.import_folder(good)
    for version, miou in ((GOOD, 0.9), (OTHER, 0.1), (BAD, 0.2)):
        loop.models.activate(version, "test")
        with loop.database.write() as session:
            loop.models.record_miou(session, {version: miou})
    for version, why in (
        (BAD, "it is the active model"),
        (OTHER, "a rollback would activate it"),
        (GOOD, "it is the best version so far, with which the gate compares candidates"),
    ):
        answer = api.delete(f"/v1/models/{version}")
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:maskloop:problem:not-deletable")
        assert answer.json()["detail"] == f"Version {version} cannot be deleted: {why}."
        assert stored_files(loop, version)
    assert api.delete("/v1/models/none").status_code == 404


@pytest.mark.parametrize("mode", ["ask", "shadow", "canary"])
def test_candidate_that_waits_for_its_release_is_not_deleted(loop: State, good: Path, mode: ReleaseState) -> None:
    loop.models.import_folder(good, state="candidate", run_id="r1")
    release_version(loop, GOOD, loop.settings.model_copy(update={"release_mode": mode}))
    with loop.database.write() as session:
        session.get_one(Run, "r1").status = "judged"
    state = loop.releases.of_run("r1").state  # type: ignore[union-attr]  # just recorded
    with pytest.raises(NotDeletable, match=f"its release 1 is {state}"):
        loop.deletion.delete_model(GOOD, "requested")
    with pytest.raises(NotDeletable, match=f"it has trained {GOOD}: its release 1 is {state}"):
        loop.deletion.delete_run("r1", "requested")
    loop.releases.decline(1, "test", None)
    assert loop.deletion.delete_model(GOOD, "requested").state == "deleted"
    with pytest.raises(ModelNotServable, match="was deleted"):
        loop.releases.release(1, "test", None)


def test_models_of_an_active_run_are_not_deleted(loop: State, other: Path) -> None:
    with loop.database.write() as session:
        session.add(Run(id="r1", number=1, status="running", reason="manual", base_version=OTHER))
    with pytest.raises(NotDeletable, match="run r1 starts from it"):
        loop.deletion.delete_model(OTHER, "requested")
    with loop.database.write() as session:
        session.get_one(Run, "r1").base_version = BAD
        session.get_one(Model, OTHER).run_id = "r1"
    with pytest.raises(NotDeletable, match="run r1 judges it"):
        loop.deletion.delete_model(OTHER, "requested")


def test_files_of_a_run_are_deleted_and_it_can_be_repeated(loop: State, api: TestClient, good: Path) -> None:
    fill(loop)
    run_id = finished_run(loop)
    refused = api.delete(f"/v1/runs/{run_id}")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:maskloop:problem:not-deletable")
    assert f"it has trained {GOOD}: it is the active model" in refused.json()["detail"]
    with loop.database.write() as session:
        session.get_one(Model, GOOD).run_id = None
    gone = api.delete(f"/v1/runs/{run_id}").json()
    assert (gone["deletion_reason"], gone["deleted_by"], gone["status"]) == ("requested", "configured", "judged")
    for file in ("log", "history", "report"):
        answer = api.get(f"/v1/runs/{run_id}/{file}")
        assert (answer.status_code, answer.json()["type"]) == (410, "urn:maskloop:problem:run-files-deleted")
        assert "(requested); its record and its recipe are kept" in answer.json()["detail"]
    assert api.get(f"/v1/runs/{run_id}/recipe").status_code == 200
    assert api.get(f"/v1/runs/{run_id}").json()["report"]["outcome"] == "promote"
    assert api.delete("/v1/runs/none").status_code == 404
    again = perform_run(loop, loop.retrain_policy.repeat(run_id).id)
    assert (again.status, again.error) == ("judged", None)


def test_run_whose_start_model_was_deleted_cannot_be_repeated(loop: State, other: Path) -> None:
    fill(loop)
    run_id = finished_run(loop)
    with loop.database.write() as session:
        session.get_one(Run, run_id).base_version = OTHER
    loop.deletion.delete_model(OTHER, "age")
    with pytest.raises(RunNotRepeatable, match=f"started from {OTHER}, which was deleted: upload"):
        loop.retrain_policy.repeat(run_id)


@pytest.mark.parametrize("status", ACTIVE)
def test_active_run_is_not_deleted(loop: State, api: TestClient, status: str) -> None:
    with loop.database.write() as session:
        session.add(Run(id="r1", number=1, status=status, reason="manual"))
    answer = api.delete("/v1/runs/r1")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        f"The files of run r1 cannot be deleted: it is {status}.",
    )


def test_interrupted_deletion_of_a_run_is_continued(
    loop: State, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = loop.settings.data_dir / "runs" / "r1"
    (folder / "train").mkdir(parents=True)
    for name in ("recipe.toml", "log.txt", "train/model.safetensors"):
        (folder / name).touch()
    with loop.database.write() as session:
        session.add(Run(id="r1", number=1, status="failed", reason="manual"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("service.retention.deletion.delete_run_files", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.deletion.delete_run("r1", "age")
    assert loop.runs.get("r1").files_deleted_at is None
    loop.retention.sweep()
    assert [path.name for path in folder.iterdir()] == ["recipe.toml"]
    assert loop.runs.get("r1").files_deleted_at is not None


def test_preview_over_http_takes_other_limits(loop: State, clock: SteppedClock, api: TestClient, other: Path) -> None:
    fill(loop, labelled=1, val=1, unlabelled=2)
    off = api.get("/v1/retention").json()
    assert (off["images"]["unlabelled"], off["images"]["limit"]) == (2, {"days": 0.0, "bytes": 0})
    assert (off["images"]["delete_by_bytes"], off["models"]["delete"]) == (0, [])
    assert off["models"]["in_use"] == [
        {"name": BAD, "bytes": loop.models.get(BAD).bytes, "reason": "it is the active model"}
    ]
    loop.retention.sweep()
    clock.step(2 * 24 * 3600)
    loop.retention.sweep()
    other_limits = api.get("/v1/retention?images_bytes=1&models_days=1").json()
    assert other_limits["images"]["delete_by_bytes"] == 2
    assert other_limits["images"]["delete_bytes"] == off["images"]["unlabelled_bytes"]
    assert [each["name"] for each in other_limits["models"]["delete"]] == [OTHER]
    for query in ("images_bytes=-1", "runs_days=nan", "runs_days=1e300", "unknown=1"):
        assert api.get(f"/v1/retention?{query}").status_code == 422
    assert loop.models.get(OTHER).state == "ready"


def test_metrics_count_what_is_stored_and_deleted(loop: State, api: TestClient, other: Path) -> None:
    ids = fill(loop, labelled=0, val=0, unlabelled=3)
    loop.deletion.delete_model(OTHER, "bytes")
    loop.images.delete(ids[0])
    loop.images.delete_unlabelled(ids[1:2], "age")
    text = api.get("/metrics").text
    for line in (
        'maskloop_deleted{kind="images",reason="requested"} 1.0',
        'maskloop_deleted{kind="images",reason="age"} 1.0',
        'maskloop_deleted{kind="models",reason="bytes"} 1.0',
        'maskloop_deleted{kind="runs",reason="age"} 0.0',
        f'maskloop_stored_bytes{{kind="unlabelled_images"}} {float(loop.images.get(ids[2]).bytes)}',
        f'maskloop_stored_bytes{{kind="models"}} {float(loop.models.get(BAD).bytes or 0)}',
    ):
        assert line in text.splitlines()
