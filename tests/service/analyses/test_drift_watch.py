"""Drift of a real pool: tests of windows, their level, the run that an alarm starts, and the report over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from sqlalchemy import select

from service.analyses.analyst import Analyst
from service.analyses.drift_watch import DriftWatch
from service.runs.policy.drift_trigger import start_for_drift
from service.settings import Settings
from service.state import State, open_state
from service.storage.analysis_tables import AnalysedModel, DriftTest, ImageAnalysis
from service.storage.tables import Image, Model, Pool, Run, RunStatus
from service.worker.background_analysis import make_analyst, watch_drift
from service.worker.sweeper import sweep
from tests.service.analyses.conftest import VERSION, analyse_all, colored
from tests.service.class_lists import TINY
from tests.service.conftest import MakeSettings, encoded, serve
from tests.service.runs.conftest import register_worker

WINDOW = 20


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(
        drift_window=WINDOW, drift_images_between_false_alarms=400, retrain_on_drift=True, min_labelled_images=1
    )


@pytest.fixture
def pool(settings: Settings) -> Iterator[State]:
    opened = open_state(settings)
    opened.models.ensure_start_model()
    yield opened
    opened.close()


def add(pool: State, count: int, *, blue: int, seed: int) -> list[str]:
    """Add images whose colours scatter around a mean."""
    rng = np.random.default_rng(seed)
    ids = []
    for index in range(count):
        red, green, blue_here = np.clip(rng.normal((150, 60, blue), 15), 5, 250).astype(int).tolist()
        ids.append(pool.images.add(colored(red, green, blue_here, seed=seed + index))[0].id)
    return ids


def analyse_as_independent(pool: State, analyst: Analyst) -> None:
    """Analyse, and unmark near-duplicates: all images of this file are."""
    analyse_all(analyst)
    with pool.database.write() as session:
        for image in session.query(Image):
            image.duplicate_of = None


def trained_up_to(pool: State, sequence: int, status: RunStatus = "judged") -> None:
    """Record that the active model comes from a run with this snapshot."""
    with pool.database.write() as session:
        number = sequence
        session.add(Run(id=f"run-{sequence}", status=status, reason="manual", number=number, image_sequence=sequence))
        session.get_one(Model, VERSION).run_id = f"run-{sequence}"


def recorded(pool: State) -> list[DriftTest]:
    with pool.database.read() as session:
        return list(session.scalars(select(DriftTest).order_by(DriftTest.id)))


def watch(pool: State) -> DriftWatch:
    return DriftWatch(pool.settings, pool.database, pool.vectors)


def test_level_follows_from_the_images_between_false_alarms(make_settings: MakeSettings, pool: State) -> None:
    assert watch(pool).level == pytest.approx(20 / 400)
    eager = make_settings(drift_window=200, drift_images_between_false_alarms=1)
    assert DriftWatch(eager, pool.database, pool.vectors).level == 0.5


def test_each_full_window_is_tested_once_and_a_shift_alarms(pool: State, analyst: Analyst) -> None:
    add(pool, 30, blue=60, seed=0)
    trained_up_to(pool, 30)
    add(pool, WINDOW - 1, blue=60, seed=100)
    analyse_as_independent(pool, analyst)
    rng = np.random.default_rng(0)
    assert watch(pool).test_if_due(VERSION, rng) is None, "one image is missing"
    add(pool, 1, blue=60, seed=200)
    analyse_as_independent(pool, analyst)
    calm = watch(pool).test_if_due(VERSION, rng)
    assert calm is not None
    assert (calm.images, calm.reference_images, calm.newest, calm.alarm) == (WINDOW, 30, 50, False)
    assert watch(pool).test_if_due(VERSION, rng) is None, "these images were tested"
    add(pool, WINDOW, blue=110, seed=300)
    analyse_as_independent(pool, analyst)
    shifted = watch(pool).test_if_due(VERSION, rng)
    assert shifted is not None
    assert (shifted.newest, shifted.alarm) == (70, True)
    assert shifted.mmd2 > calm.mmd2
    assert shifted.p_value == pytest.approx(1 / 400)


def test_labelled_images_stand_for_the_data_of_a_model_trained_elsewhere(pool: State, analyst: Analyst) -> None:
    ids = add(pool, 40, blue=60, seed=0)
    mask = encoded(np.zeros((24, 32), np.uint8))
    for image_id in ids[:20]:
        pool.images.put_mask(image_id, mask, classes=TINY, partial=True)
    analyse_as_independent(pool, analyst)
    found = watch(pool).test_if_due(VERSION, np.random.default_rng(0))
    assert found is not None
    assert (found.images, found.reference_images, found.newest) == (20, 20, 40)


def test_no_test_before_the_training_data_is_analysed(pool: State, analyst: Analyst) -> None:
    add(pool, 60, blue=60, seed=0)
    trained_up_to(pool, 40)
    analyse_as_independent(pool, analyst)
    with pool.database.write() as session:
        session.query(AnalysedModel).update({"oldest": 30})
    assert watch(pool).test_if_due(VERSION) is None
    with pool.database.write() as session:
        session.query(AnalysedModel).update({"oldest": 1})
    assert watch(pool).test_if_due(VERSION) is not None


def stream(pool: State, angles: Iterable[float], scenes: Iterable[object]) -> None:
    """Store images with embeddings at these angles; the first image of a scene leads the others."""
    rows: dict[int, list[float]] = {}
    leaders: dict[object, str] = {}
    with pool.database.write() as session:
        sequence = session.get_one(Pool, 1).image_sequence
        for angle, scene in zip(angles, scenes, strict=True):
            sequence += 1
            image_id = f"{sequence:064x}"
            leader = leaders.setdefault(scene, image_id)
            session.add(
                Image(
                    id=image_id,
                    sequence=sequence,
                    media_type="image/png",
                    width=32,
                    height=24,
                    bytes=1,
                    duplicate_of=leader if leader != image_id else None,
                )
            )
            session.add(ImageAnalysis(version=VERSION, sequence=sequence, confidence=1.0, uncertainty=0.0, areas=[1.0]))
            rows[sequence] = [np.cos(angle), np.sin(angle), 0.0]
        session.get_one(Pool, 1).image_sequence = sequence
        session.add(AnalysedModel(version=VERSION, dimensions=3, oldest=1, newest=sequence))
    pool.vectors.embeddings(VERSION, 3).write(list(rows), np.array(list(rows.values())))


def test_common_scenes_of_an_unchanged_stream_do_not_alarm(pool: State) -> None:
    # Every other image is one of 50 scenes, which the training data knows. The rest are images of their own.
    rng = np.random.default_rng(0)
    common = [index % 2 == 0 for index in range(260)]
    angles = [0.01 * (index // 2 % 50) if is_common else 1.5 + rng.random() for index, is_common in enumerate(common)]
    scenes = [("common", index // 2 % 50) if is_common else index for index, is_common in enumerate(common)]
    stream(pool, angles, scenes)
    trained_up_to(pool, 200)
    found = watch(pool).test_if_due(VERSION, rng)
    assert found is not None
    assert found.p_value > 0.1
    assert (found.images, found.reference_images, found.newest) == (WINDOW, 200, 260)


def test_frames_of_one_scene_in_a_row_count_once(pool: State) -> None:
    stream(pool, np.linspace(0, 1, 90), [*range(40), *["parked"] * 30, *range(100, 120)])
    trained_up_to(pool, 40)
    found = watch(pool).test_if_due(VERSION, np.random.default_rng(0))
    assert found is not None
    assert (found.images, found.newest) == (WINDOW, 90)
    with pool.database.write() as session:
        session.query(DriftTest).delete()
        session.query(Image).filter(Image.sequence > 88).delete()
    assert watch(pool).test_if_due(VERSION) is None, "19 images and one frame would suffice; there are 18"


def drifting(pool: State) -> str:
    """Add training data with labels, then a window of other images; return the id of a labelled image."""
    ids = add(pool, 30, blue=60, seed=0)
    # A run needs labels of two classes.
    mask = encoded(np.repeat(np.array([0, 1], np.uint8), 12 * 32).reshape(24, 32))
    pool.images.put_mask(ids[0], mask, classes=TINY, split="labelled")
    pool.images.put_mask(ids[1], mask, classes=TINY, split="val")
    trained_up_to(pool, 30)
    add(pool, WINDOW, blue=140, seed=300)
    analyse_as_independent(pool, make_analyst(pool))
    register_worker(pool)
    return ids[0]


def test_alarm_starts_one_run(pool: State) -> None:
    drifting(pool)
    watch_drift(pool)
    sweep(pool)
    assert [test.alarm for test in recorded(pool)] == [True]
    (run, _) = pool.runs.list()
    assert (run.reason, run.status) == ("drift", "queued")
    sweep(pool)
    assert len(pool.runs.list()) == 2
    with pool.database.write() as session:
        row = session.get_one(Run, run.id)
        row.status, row.image_sequence = "judged", 50
    sweep(pool)
    assert len(pool.runs.list()) == 2, "a run used these images"


def test_alarm_starts_no_run_unless_the_settings_want_it(make_settings: MakeSettings, pool: State) -> None:
    drifting(pool)
    watch(pool).test_if_due(VERSION)
    pool.retrain_policy.settings = pool.settings.model_copy(update={"retrain_on_drift": False})
    assert start_for_drift(pool.retrain_policy) is None


def test_alarm_waits_for_a_run_that_is_active(pool: State) -> None:
    drifting(pool)
    active = pool.retrain_policy.start("manual")
    watch_drift(pool)
    sweep(pool)
    assert [run.reason for run in pool.runs.list()] == ["manual", "manual"]
    pool.runs.request_cancel(active.id)
    with pool.database.write() as session:
        session.get_one(Run, active.id).image_sequence = 30
    assert start_for_drift(pool.retrain_policy) is not None


def test_report_and_metrics_over_http(pool: State, settings: Settings) -> None:
    drifting(pool)
    watch(pool).test_if_due(VERSION, np.random.default_rng(0))
    with serve(settings) as client:
        report = client.get("/v1/drift").json()
        metrics = client.get("/metrics").text
    assert (report["model"], report["window"], report["level"]) == (VERSION, WINDOW, 0.05)
    assert report["alarm"] is True
    assert report["tests"][0]["p_value"] == pytest.approx(1 / 400)
    (day,) = report["days"]
    assert day["images"] == 50
    assert 0 < day["confidence"] <= 1
    assert sum(day["areas"].values()) == pytest.approx(1, abs=1e-3)
    assert set(day["areas"]) <= {"red", "green", "blue", "black", "white"}
    assert "maskloop_drift_alarm 1.0" in metrics
    assert "maskloop_drift_p_value 0.0025" in metrics
    assert 'maskloop_day_class_area{class_id="0"}' in metrics
    assert "maskloop_analysis_waiting_images 0.0" in metrics


def test_report_of_an_empty_pool(settings: Settings) -> None:
    with serve(settings) as client:
        report = client.get("/v1/drift").json()
        metrics = client.get("/metrics").text
    assert (report["alarm"], report["tests"], report["days"]) == (None, [], [])
    assert "maskloop_analysis_waiting_images 0.0" in metrics
