"""Which images to label next, and similar ones, over HTTP with a real pool."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.analyses import image_orders
from service.analyses.analysed_range import begin
from service.analyses.analyst import Analyst
from service.errors import NotAnalysed, Overloaded
from service.settings import Settings
from service.state import State
from service.storage.analysis_tables import ImageAnalysis
from service.storage.tables import Image
from tests.service.analyses.conftest import VERSION, analyse_all, colored
from tests.service.class_lists import TINY
from tests.service.conftest import encoded, serve
from tests.service.tiny_bundle import write_bundle

KINDS = {"red": (220, 10, 10), "green": (10, 220, 10), "blue": (10, 10, 220)}


def fill(pool: State, **counts: int) -> dict[str, str]:
    """Add images of some colours that differ a little; return the kind of each id."""
    found = {}
    for number, (kind, count) in enumerate(counts.items()):
        for index in range(count):
            red, green, blue = (value + 2 * index for value in KINDS[kind])
            image = pool.images.add(colored(red, green, blue, seed=100 * number + index))[0]
            found[image.id] = kind
    return found


def label(pool: State, image_id: str) -> None:
    mask = encoded(np.zeros((24, 32), np.uint8))
    pool.images.put_mask(image_id, mask, classes=TINY, split="labelled", partial=True)


def unmark_duplicates(pool: State) -> None:
    with pool.database.write() as session:
        for image in session.query(Image):
            image.duplicate_of = None


def test_first_labels_are_one_image_of_each_kind(pool: State, analyst: Analyst) -> None:
    kinds = fill(pool, red=6, green=4, blue=2)
    analyse_all(analyst)
    unmark_duplicates(pool)
    chosen = pool.image_orders.uncertain(3, np.random.default_rng(0))
    assert [kinds[image.id] for image in chosen] == ["red", "green", "blue"]


def test_labelled_kinds_come_last(pool: State, analyst: Analyst) -> None:
    kinds = fill(pool, red=6, green=4, blue=2)
    analyse_all(analyst)
    unmark_duplicates(pool)
    ids = list(kinds)
    label(pool, ids[0])
    label(pool, ids[1])
    chosen = pool.image_orders.uncertain(10, np.random.default_rng(0))
    assert [kinds[image.id] for image in chosen[:2]] == ["green", "blue"]
    assert len(chosen) == 10, "labelled images are left out"


def test_near_duplicates_and_new_images_are_left_out(pool: State, analyst: Analyst) -> None:
    kinds = fill(pool, red=2, green=2)
    analyse_all(analyst)
    unmark_duplicates(pool)
    ids = list(kinds)
    with pool.database.write() as session:
        session.get_one(Image, ids[1]).duplicate_of = ids[0]
    fill(pool, blue=1)
    assert {image.id for image in pool.image_orders.uncertain(10)} == {ids[0], ids[2], ids[3]}


def test_model_without_embeddings_orders_by_uncertainty(pool: State, analyst: Analyst, tmp_path: object) -> None:
    fill(pool, red=3)
    folder = write_bundle(pool.settings.data_dir / "plain", version="20260105T000000-dddddddd")
    pool.models.activate(pool.models.import_folder(folder).version, "test")
    analyse_all(analyst)
    unmark_duplicates(pool)
    with pool.database.write() as session:
        for sequence, uncertainty in ((1, 0.2), (2, 0.9), (3, 0.5)):
            session.get_one(ImageAnalysis, ("20260105T000000-dddddddd", sequence)).uncertainty = uncertainty
    assert [image.sequence for image in pool.image_orders.uncertain(2)] == [2, 3]
    with pytest.raises(NotAnalysed, match="no embeddings"):
        pool.image_orders.similar_to(pool.images.page().images[0].id, 2)


def test_similar_images_are_those_with_the_largest_cosine(pool: State, analyst: Analyst) -> None:
    kinds = fill(pool, red=5, green=5, blue=5)
    analyse_all(analyst)
    ids = list(kinds)
    embeddings = pool.vectors.embeddings(VERSION, 3).read(range(1, 16)).astype(np.float32)
    expected = [ids[i] for i in np.argsort(-embeddings @ embeddings[7], kind="stable") if i != 7]
    found = pool.image_orders.similar_to(ids[7], 14)
    assert [image.id for image in found] == expected
    assert {kinds[image.id] for image in found[:4]} == {"green"}
    pool.images.delete(expected[0])
    assert [image.id for image in pool.image_orders.similar_to(ids[7], 3)] == expected[1:4]


def test_nothing_analysed_is_an_error_with_a_remedy(pool: State, analyst: Analyst) -> None:
    ids = list(fill(pool, red=1))
    with pytest.raises(NotAnalysed, match="a worker does it"):
        pool.image_orders.uncertain(3)
    analyse_all(analyst)
    late = next(iter(fill(pool, green=1)))
    with pytest.raises(NotAnalysed, match="not analysed yet"):
        pool.image_orders.similar_to(late, 3)
    assert pool.image_orders.similar_to(ids[0], 3) == []


def test_after_a_swap_nothing_is_listed_before_the_new_model_has_analysed_images(
    pool: State, analyst: Analyst, tmp_path: Path
) -> None:
    fill(pool, red=2)
    analyse_all(analyst)
    folder = write_bundle(tmp_path / "other", version="20260102T000000-bbbbbbbb", embedding=True)
    pool.models.activate(pool.models.import_folder(folder).version, "test")
    begin(pool.database, "20260102T000000-bbbbbbbb", 3)
    with pytest.raises(NotAnalysed, match="a worker does it"):
        pool.image_orders.uncertain(3)


def test_embeddings_of_another_machine_are_an_error_with_a_remedy(pool: State, analyst: Analyst) -> None:
    ids = list(fill(pool, red=2))
    analyse_all(analyst)
    shutil.rmtree(pool.settings.data_dir / "embeddings")
    with pytest.raises(NotAnalysed, match="share the folder"):
        pool.image_orders.uncertain(3)
    with pytest.raises(NotAnalysed, match="share the folder"):
        pool.image_orders.similar_to(ids[0], 3)


def test_request_that_waits_too_long_for_another_one_is_rejected(
    pool: State, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_orders, "MAX_WAIT_S", 0.01)
    fill(pool, red=2)
    analyse_all(analyst)
    with pool.image_orders._only_one(), pytest.raises(Overloaded):
        pool.image_orders.uncertain(3)
    assert pool.image_orders.uncertain(3)


@pytest.fixture
def client(settings: Settings, pool: State) -> Iterator[TestClient]:
    with serve(settings) as ready:
        yield ready


def test_orders_over_http(client: TestClient, pool: State, analyst: Analyst) -> None:
    ids = list(fill(pool, red=3, green=2))
    analyse_all(analyst)
    unmark_duplicates(pool)
    page = client.get("/v1/images", params={"order": "uncertain", "limit": 2}).json()
    assert len(page["images"]) == 2
    assert (page["next_cursor"], page["unlabelled"]) == (None, 5)
    similar = client.get("/v1/images", params={"similar_to": ids[0], "limit": 2}).json()["images"]
    assert {image["id"] for image in similar} == {ids[1], ids[2]}
    assert similar[0]["duplicate_of"] is None
    for wrong in ({"order": "uncertain", "cursor": "3"}, {"similar_to": ids[0], "which": "labelled"}):
        assert client.get("/v1/images", params=wrong).status_code == 400
    assert client.get("/v1/images", params={"similar_to": "f" * 64}).status_code == 404
