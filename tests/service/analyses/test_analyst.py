"""Background analysis of a real pool with a real model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from sqlalchemy import select

from service.analyses import analyst as analyst_module
from service.analyses.analysed_range import analysed_model
from service.analyses.analyst import Analyst
from service.analyses.duplicate_search import find_leaders
from service.curation.perceptual_hash import perceptual_hash
from service.images.duplicate_clusters import join_cluster
from service.segmentation.inference.cancellation import InferenceCancelled
from service.state import State
from service.storage.analysis_tables import AnalysedDay, AnalysedModel, ImageAnalysis
from service.storage.tables import Image
from service.worker.background_analysis import make_analyst
from tests.service.analyses.conftest import VERSION, analyse_all, colored
from tests.service.conftest import blob_file, encoded
from tests.service.tiny_bundle import COLORS, mean_color, nearest, picture, write_bundle

OTHER = "20260102T000000-bbbbbbbb"


def rows(pool: State, version: str = VERSION) -> dict[int, ImageAnalysis]:
    query = select(ImageAnalysis).where(ImageAnalysis.version == version).order_by(ImageAnalysis.sequence)
    with pool.database.read() as session:
        return {row.sequence: row for row in session.scalars(query)}


def progress(pool: State, version: str = VERSION) -> tuple[int, int]:
    model = analysed_model(pool.database, version)
    assert model is not None
    return model.oldest, model.newest


def activate_other(pool: State, tmp_path: Path, version: str = OTHER) -> None:
    folder = write_bundle(tmp_path / version, version=version, colors=COLORS[::-1], embedding=True)
    pool.models.activate(pool.models.import_folder(folder).version, "test")


def test_every_image_gets_confidence_areas_embedding_and_hash(pool: State, analyst: Analyst) -> None:
    pictures = [picture(seed=seed) for seed in range(3)]
    for pixels in pictures:
        pool.images.add(encoded(pixels))
    assert analyse_all(analyst) == 3
    found = rows(pool)
    assert list(found) == [1, 2, 3]
    embeddings = pool.vectors.embeddings(VERSION, 3).read([1, 2, 3])
    for sequence, pixels in enumerate(pictures, start=1):
        row = found[sequence]
        assert 0.2 < row.confidence <= 1
        assert 0 <= row.uncertainty <= 1
        shares = [np.mean(nearest(pixels, COLORS) == class_id) for class_id in range(len(row.areas))]
        np.testing.assert_allclose(row.areas, shares, atol=1e-5)
        np.testing.assert_allclose(embeddings[sequence - 1], mean_color(pixels), atol=2e-3)
        assert pool.vectors.hashes().read([sequence])[0, 0] == perceptual_hash(pixels)


def test_days_sum_their_images(pool: State, analyst: Analyst) -> None:
    for seed in range(20):
        pool.images.add(encoded(picture(seed=seed)))
    analyse_all(analyst)
    with pool.database.read() as session:
        day = session.scalars(select(AnalysedDay)).one()
        created = pool.images.page().images[0].created_at
    found = rows(pool).values()
    assert (day.images, day.day) == (20, created.date())
    assert day.confidence == pytest.approx(sum(row.confidence for row in found))
    assert sum(day.areas) == pytest.approx(20, abs=1e-3)


def test_place_is_kept_across_workers_and_deletions(
    pool: State, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyst_module, "BATCH", 2)
    ids = [pool.images.add(encoded(picture(seed=seed)))[0].id for seed in range(5)]
    assert analyst.analyse_batch(lambda: False) == 2
    assert progress(pool) == (1, 2)
    pool.images.delete(ids[2])
    assert make_analyst(pool).analyse_batch(lambda: False) == 2
    assert progress(pool) == (1, 5)
    assert analyse_all(analyst) == 0
    pool.images.add(encoded(picture(seed=9)))
    assert analyse_all(analyst) == 1
    assert list(rows(pool)) == [1, 2, 4, 5, 6]


def test_after_a_swap_new_images_come_first_and_older_ones_follow(
    pool: State, analyst: Analyst, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyst_module, "BATCH", 2)
    for seed in range(4):
        pool.images.add(encoded(picture(seed=seed)))
    analyse_all(analyst)
    activate_other(pool, tmp_path)
    pool.images.add(encoded(picture(seed=4)))
    analyst.analyse_batch(lambda: False)
    assert list(rows(pool, OTHER)) == [5]
    analyst.analyse_batch(lambda: False)
    assert list(rows(pool, OTHER)) == [3, 4, 5]
    analyse_all(analyst)
    assert progress(pool, OTHER) == (1, 5)
    assert list(rows(pool)) == [1, 2, 3, 4], "kept for a rollback"


def test_models_before_the_previous_one_are_forgotten(pool: State, analyst: Analyst, tmp_path: Path) -> None:
    pool.images.add(encoded(picture()))
    for version in (VERSION, OTHER, "20260103T000000-cccccccc"):
        if version != VERSION:
            activate_other(pool, tmp_path, version)
        assert analyse_all(analyst) == 1
    assert rows(pool) == {}
    assert not list((pool.settings.data_dir / "embeddings").glob(f"{VERSION}*"))
    with pool.database.read() as session:
        assert len(session.scalars(select(AnalysedModel)).all()) == 2


def test_deletion_removes_analysis_embedding_and_hash(pool: State, analyst: Analyst) -> None:
    ids = [pool.images.add(encoded(picture(seed=seed)))[0].id for seed in range(2)]
    analyse_all(analyst)
    pool.images.delete(ids[0])
    assert list(rows(pool)) == [2]
    assert not pool.vectors.embeddings(VERSION, 3).read([1]).any()
    assert not pool.vectors.hashes().read([1]).any()
    assert pool.vectors.embeddings(VERSION, 3).read([2]).any()


def test_image_deleted_during_its_analysis_leaves_nothing(
    pool: State, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [pool.images.add(encoded(picture(seed=seed)))[0].id for seed in range(2)]

    def delete_first(*arguments: object) -> dict[int, int]:
        pool.images.delete(ids[0])
        return find_leaders(*arguments)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(analyst_module, "find_leaders", delete_first)
    analyse_all(analyst)
    assert list(rows(pool)) == [2]
    assert not pool.vectors.embeddings(VERSION, 3).read([1]).any()


def test_second_of_two_workers_with_the_same_batch_records_nothing(
    pool: State, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.images.add(encoded(picture()))

    def other_worker_first(*arguments: object) -> dict[int, int]:
        monkeypatch.setattr(analyst_module, "find_leaders", find_leaders)
        make_analyst(pool).analyse_batch(lambda: False)
        return find_leaders(*arguments)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(analyst_module, "find_leaders", other_worker_first)
    analyse_all(analyst)
    with pool.database.read() as session:
        assert session.scalars(select(AnalysedDay.images)).all() == [1]


def test_lost_file_is_left_out(pool: State, analyst: Analyst) -> None:
    lost = pool.images.add(encoded(picture()))[0]
    blob_file(pool, "images", lost.id).unlink()
    pool.images.add(encoded(picture(seed=1)))
    assert analyse_all(analyst) == 2
    assert list(rows(pool)) == [2]


def test_stopped_batch_is_analysed_later(pool: State, analyst: Analyst) -> None:
    pool.images.add(encoded(picture()))
    with pytest.raises(InferenceCancelled):
        analyst.analyse_batch(lambda: True)
    assert rows(pool) == {}
    assert analyse_all(analyst) == 1


def jpeg(pixels: np.ndarray, quality: int) -> bytes:
    sink = io.BytesIO()
    PillowImage.fromarray(pixels).save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def scene(seed: int) -> np.ndarray:
    """Smooth shapes with a mean colour of their own."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 120, (6, 6, 3)) + rng.integers(0, 135, 3)
    return np.asarray(PillowImage.fromarray(small.astype(np.uint8)).resize((96, 72), PillowImage.Resampling.BICUBIC))


def duplicates(pool: State) -> dict[int, str | None]:
    return {image.sequence: image.duplicate_of for image in pool.images.page(limit=1000).images if image.duplicate_of}


def test_few_images_are_compared_by_hash(pool: State, analyst: Analyst) -> None:
    first = pool.images.add(jpeg(scene(0), 95))[0]
    pool.images.add(jpeg(scene(1), 95))
    pool.images.add(jpeg(scene(0), 60))
    analyse_all(analyst)
    pool.images.add(jpeg(scene(0), 40))
    analyse_all(analyst)
    assert duplicates(pool) == {3: first.id, 4: first.id}
    model = analysed_model(pool.database, VERSION)
    assert model is not None
    assert model.duplicate_threshold is None


def test_after_a_rollback_images_that_were_compared_keep_their_clusters(
    pool: State, analyst: Analyst, tmp_path: Path
) -> None:
    pool.images.add(jpeg(scene(0), 95))
    analyse_all(analyst)
    activate_other(pool, tmp_path)
    leader, other = (pool.images.add(jpeg(scene(seed), 60))[0] for seed in (0, 7))
    analyse_all(analyst)
    with pool.database.write() as session:
        # As another model may see them: the copy of image 1 is like image 3.
        session.get_one(Image, leader.id).duplicate_of = None
        session.get_one(Image, other.id).duplicate_of = leader.id
    pool.models.activate(VERSION, reason="rollback")
    assert analyse_all(analyst) == 2
    assert duplicates(pool) == {3: leader.id}


def test_image_that_joins_a_cluster_takes_its_own_near_duplicates_along(pool: State) -> None:
    first, second, third = (pool.images.add(encoded(picture(seed=seed)))[0] for seed in range(3))
    with pool.database.write() as session:
        session.get_one(Image, third.id).duplicate_of = second.id
    with pool.database.write() as session:
        join_cluster(session, session.get_one(Image, second.id), session.get_one(Image, first.id))
    assert duplicates(pool) == {2: first.id, 3: first.id}


def directions(count: int) -> list[tuple[int, int, int]]:
    """Colours in clearly different directions."""
    angles = [(np.radians(polar), np.radians(turn)) for polar in (15, 35, 55, 75) for turn in (8, 23, 38, 53, 68, 83)]
    vectors = [(np.sin(p) * np.cos(t), np.sin(p) * np.sin(t), np.cos(p)) for p, t in angles]
    return [(int(30 + 150 * x), int(30 + 150 * y), int(30 + 150 * z)) for x, y, z in vectors[:count]]


def test_threshold_is_measured_once_the_pool_has_enough_images(pool: State, analyst: Analyst) -> None:
    colors = directions(24)
    for seed, color in enumerate(colors):
        pool.images.add(colored(*color, seed=seed))
    analyse_all(analyst)
    model = analysed_model(pool.database, VERSION)
    assert model is not None
    assert model.duplicate_threshold is not None
    assert 0.99 < model.duplicate_threshold < 1
    red, green, blue = colors[5]
    for number, color in enumerate([colors[5], (red, green, blue + 25), (red, green, blue + 26)]):
        pool.images.add(colored(*color, seed=100 + number))
    analyse_all(analyst)
    embeddings = pool.vectors.embeddings(VERSION, 3).read(range(1, 28)).astype(np.float32)
    cosines = embeddings @ embeddings.T
    # The naive reference: each image joins the most similar leader, if that is similar enough.
    leaders: list[int] = []
    expected = {}
    for index in range(27):
        best = max(leaders, key=lambda leader: cosines[index, leader], default=None)
        if best is not None and cosines[index, best] >= model.duplicate_threshold:
            expected[index + 1] = best + 1
        else:
            leaders.append(index)
    ids = {image.id: image.sequence for image in pool.images.page(limit=1000).images}
    found = {sequence: ids[str(leader)] for sequence, leader in duplicates(pool).items()}
    assert found == expected == {25: 6, 27: 26}


def test_images_of_a_chain_join_the_leader_only_within_the_threshold(pool: State, analyst: Analyst) -> None:
    pool.images.add(jpeg(scene(0), 95))
    analyse_all(analyst)
    # Steps of 3 degrees, each near the one before it: a chain must not become one cluster.
    with pool.database.write() as session:
        session.query(AnalysedModel).update({"duplicate_threshold": float(np.cos(np.radians(4)))})
    steps = [(200 * np.cos(np.radians(a)), 200 * np.sin(np.radians(a))) for a in (30, 33, 36, 39)]
    chain = [
        pool.images.add(colored(int(red), 30, int(blue), seed=seed))[0].id for seed, (red, blue) in enumerate(steps)
    ]
    analyse_all(analyst)
    found = [pool.images.get(image_id).duplicate_of for image_id in chain]
    assert found == [None, chain[0], None, chain[2]]
