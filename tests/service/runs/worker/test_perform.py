"""Performing a run, from its claim to its end, with a substitute for the trainer."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.runs.worker.perform import perform
from service.settings import Settings, open_telemetry_variables
from service.state import State
from service.storage.tables import Run, Split
from service.tracing import open_tracing
from tests.service.class_lists import TINY
from tests.service.conftest import encoded, eventually
from tests.service.otlp_receiver import receiving
from tests.service.runs.actor import Actor
from tests.service.runs.conftest import (
    BAD,
    GOOD,
    fill,
    perform_run,
    register_worker,
    write_version,
)
from tests.service.runs.worker.performing import Background, activations
from tests.service.tiny_bundle import COLORS, nearest

WORSE = "20260103T000000-worse000"


def pool_images(loop: State, split: Split) -> list[str]:
    return [image.id for image in loop.images.page(which="labelled").images if image.split == split]


def test_better_candidate_is_promoted(loop: State, run: Run, actor: Actor) -> None:
    done = perform_run(loop, run.id)
    assert (done.status, done.phase, done.error) == ("judged", "judge", None)
    assert (done.base_version, done.candidate_version) == (BAD, GOOD)
    assert done.miou_after == 1.0
    assert done.miou_before is not None
    assert done.miou_before < 0.5
    assert done.report is not None
    assert (done.report["outcome"], done.report["units"], done.report["validation_set_uses"]) == ("promote", 3, 0)
    assert done.report["comparisons"][0]["version"] == BAD
    assert done.finished_at is not None
    desired = loop.models.activated()
    assert desired is not None
    assert (desired.version, desired.state, desired.miou, desired.run_id) == (GOOD, "ready", 1.0, run.id)
    phases = [e.event["phase"] for e in loop.runs.events(run.id) if e.event["event"] == "phase"]
    assert phases == ["prepare", "train", "export", "judge"]
    assert actor.history == ["train from 0", "export"]
    remaining = {entry.name for entry in (loop.settings.data_dir / "runs" / run.id).iterdir()}
    assert remaining == {"recipe.toml", "train", "log.txt"}
    # The message may be delivered twice.
    assert perform_run(loop, run.id).attempts == 1
    assert len(actor.history) == 2


def test_worse_candidate_is_rejected_and_kept_in_the_store(
    loop: State, run: Run, actor: Actor, good: Path, tmp_path: Path
) -> None:
    loop.models.import_folder(good)
    loop.models.activate(GOOD, "a better model was activated meanwhile")
    worse = write_version(tmp_path, WORSE, colors=(*COLORS[1:], COLORS[0]))
    actor.behave(candidate=str(worse))
    done = perform_run(loop, run.id)
    assert (done.status, done.error) == ("judged", None)
    assert done.miou_before == 1.0
    # What the manifests say was measured on other images.
    assert loop.models.get(GOOD).miou == 1.0
    rejected = loop.models.get(WORSE)
    assert rejected.state == "rejected"
    assert "against 1.0000 of the active model" in (rejected.error or "")
    release = loop.releases.list(run.id)[0]
    assert (release.state, release.reason, release.decided_by) == ("declined", rejected.error, None)
    desired = loop.models.activated()
    assert desired is not None
    assert desired.version == GOOD


def test_undecided_candidate_is_kept_and_a_person_may_activate_it(loop: State, actor: Actor) -> None:
    """One validation image tells nothing about the spread."""
    fill(loop, val=1)
    register_worker(loop)
    run = loop.retrain_policy.start("manual")
    done = perform_run(loop, run.id)
    assert (done.status, done.error) == ("judged", None)
    assert done.report is not None
    assert done.report["outcome"] == "undecided"
    assert "this is not enough evidence" in done.report["sentence"]
    assert activations(loop) == [BAD]
    candidate = loop.models.get(GOOD)
    assert (candidate.state, candidate.error, candidate.miou) == ("candidate", None, 1.0)
    # The worker died before it marked the run as finished.
    with loop.database.write() as session:
        session.get_one(Run, run.id).status = "queued"
    again = perform_run(loop, run.id)
    assert (again.status, again.report) == ("judged", done.report)
    loop.releases.activate(GOOD, "its masks look good", "anna")
    assert activations(loop) == [BAD, GOOD]


def test_use_of_the_validation_set_is_counted(loop: State, run: Run, actor: Actor) -> None:
    assert loop.runs.count_judged() == 0
    perform_run(loop, run.id)
    assert loop.runs.count_judged() == 1
    # It describes the network of the next run.
    loop.models.activate(BAD, "rollback")
    second = perform_run(loop, loop.retrain_policy.start("manual").id)
    assert second.report is not None
    assert second.report["validation_set_uses"] == 1


def test_labels_changed_during_training_do_not_change_the_verdict(loop: State, run: Run, actor: Actor) -> None:
    actor.behave(steps=10_000)
    background = Background(loop, run.id)
    eventually(lambda: loop.runs.get(run.id).step is not None)
    background.stopping.set()
    background.join()
    for image_id in pool_images(loop, "val"):
        loop.images.put_mask(image_id, encoded(np.full((30, 40), 255, np.uint8)), classes=TINY)
    actor.behave(steps=(loop.runs.get(run.id).step or 0) + 50, step_s=0)
    done = perform_run(loop, run.id)
    assert (done.status, done.miou_after) == ("judged", 1.0)


def test_unknown_guard_class_fails_before_training(
    loop: State, run: Run, actor: Actor, loop_settings: Callable[..., Settings]
) -> None:
    done = perform_run(loop, run.id, settings=loop_settings(gate_guard_classes=("rde",)))
    assert (done.status, done.phase) == ("failed", "prepare")
    assert "MASKLOOP_GATE_GUARD_CLASSES" in (done.error or "")
    assert actor.history == []


def test_error_message_of_the_trainer_is_the_error_of_the_run(loop: State, run: Run, actor: Actor) -> None:
    actor.behave(fail_at=2)
    done = perform_run(loop, run.id)
    assert done.status == "failed"
    assert "lower the learning rate" in (done.error or "")
    assert loop.runs.events(run.id)[-1].event["status"] == "failed"
    # Another run may start.
    assert loop.retrain_policy.start("manual").status == "queued"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("labelled", 255), "Every pixel of the labels for training is 255, not labelled: label them."),
        (("labelled", 1), "The labels for training show one class only, 'green', and one class alone cannot be learnt"),
        (("val", 255), "Every pixel of the `val` labels is 255, not labelled, so a candidate cannot be evaluated"),
    ],
)
def test_run_with_useless_labels_fails_before_training(
    loop: State, run: Run, actor: Actor, labels: tuple[Split, int], message: str
) -> None:
    split, value = labels
    for image_id in pool_images(loop, split):
        mask = np.full((30, 40), value, np.uint8)
        loop.images.put_mask(image_id, encoded(mask), classes=TINY)
    done = perform_run(loop, run.id)
    assert (done.status, done.phase) == ("failed", "prepare")
    assert (done.error or "").startswith(message)
    assert actor.history == []


def test_partial_labels_are_judged(loop: State, run: Run, actor: Actor) -> None:
    image_id = pool_images(loop, "val")[0]
    mask = nearest(np.asarray(Image.open(io.BytesIO(loop.images.read(image_id)))), COLORS)
    loop.images.put_mask(image_id, encoded(np.where(mask == 0, 0, 255).astype(np.uint8)), classes=TINY, partial=True)
    done = perform_run(loop, run.id)
    assert (done.status, done.miou_after) == ("judged", 1.0)
    assert actor.history == ["train from 0", "export"]


def test_run_is_a_trace_with_a_span_for_each_phase(
    loop: State, run: Run, actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        tracing = open_tracing(open_telemetry_variables())
        assert tracing is not None
        tracing.start()
        perform(
            run.id,
            threading.Event(),
            settings=loop.settings,
            database=loop.database,
            images=loop.images,
            models=loop.models,
            tracing=tracing,
        )
        tracing.close()
        run_span = receiver.one("run")
        assert run_span.attributes == {"maskloop.run.id": run.id}
        phases = [receiver.one(name) for name in ("prepare", "train", "export", "judge")]
        assert {phase.parent_id for phase in phases} == {run_span.span_id}
        assert sum(phase.seconds for phase in phases) <= run_span.seconds


@pytest.mark.parametrize(("precision", "arguments"), [("fp32", ""), ("int8", " --precision fp32,int8 --data ")])
def test_export_writes_the_graph_that_the_service_will_use(
    loop: State, run: Run, precision: str, arguments: str
) -> None:
    settings = loop.settings.model_copy(update={"precision": precision})
    assert perform_run(loop, run.id, settings=settings).status == "judged"
    log = (loop.settings.data_dir / "runs" / run.id / "log.txt").read_text()
    (export,) = [line for line in log.splitlines() if " -m exporter export " in line]
    assert ("--precision" in export) == bool(arguments)
    assert arguments in export
