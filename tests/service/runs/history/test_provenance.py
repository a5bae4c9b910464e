"""From what a model was made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.state import State
from tests.service.class_lists import TINY
from tests.service.conftest import encoded, serve
from tests.service.runs.conftest import BAD, GOOD, RECIPE, fill, finished_run, write_version
from tests.service.tiny_bundle import COLORS, nearest, picture


@pytest.fixture
def api(loop: State) -> Iterator[TestClient]:
    with serve(loop.settings) as client:
        yield client


def test_model_of_a_run_names_its_images_labels_and_verdict(api: TestClient, loop: State) -> None:
    ids = fill(loop, val=2)
    loop.images.put_label(ids[0], nearest(picture(seed=0), COLORS), classes=TINY, accepted_from=BAD)
    masks = {image_id: loop.images.get(image_id).mask_sha256 for image_id in ids[:4]}
    run_id = finished_run(loop)
    # What happens later is not part of it, but deletions are told.
    fill(loop, seed=1)
    mask = encoded(nearest(picture(seed=70), COLORS))
    loop.images.put_mask(ids[0], mask, classes=TINY)
    for image_id in (ids[1], ids[-1]):
        api.delete(f"/v1/images/{image_id}")
    told = api.get(f"/v1/models/{GOOD}/provenance").json()
    assert told["ancestors"] == []
    assert told["run"] == api.get(f"/v1/runs/{run_id}").json()
    assert told["run"]["report"]["outcome"] == "promote"
    assert told["snapshot"] == {
        "image_sequence": 7,
        "label_sequence": 5,
        "unlabelled": 3,
        "labelled": 2,
        "val": 2,
        "deleted": 2,
    }
    assert told["labels"] == [
        {
            "image_id": image_id,
            "mask_sha256": masks[image_id],
            "split": "labelled" if image_id in ids[:2] else "val",
            "group": image_id,
            "deleted": image_id == ids[1],
            "accepted_from": BAD if image_id == ids[0] else None,
        }
        for image_id in sorted(masks)
    ]
    assert told["next_cursor"] is None


def test_labels_are_listed_in_pages(api: TestClient, loop: State) -> None:
    ids = fill(loop)
    finished_run(loop)
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.get(f"/v1/models/{GOOD}/provenance?limit=2&cursor={cursor}").json()
        found += [label["image_id"] for label in page["labels"]]
        cursor = page["next_cursor"]
    assert found == sorted(ids[:5])


def test_ancestors_are_the_chain_of_parents(api: TestClient, loop: State, tmp_path: Path) -> None:
    """Of which one is not in the store, and one names itself."""
    parents = {"20260103T000000-third000": "20260104T000000-fourth00", "20260104T000000-fourth00": "unknown"}
    parents["20260105T000000-fifth000"] = "20260105T000000-fifth000"
    for version, parent in parents.items():
        provenance = {"parent": parent, "recipe": RECIPE, "data_fingerprint": "none", "code_version": "test"}
        loop.models.import_folder(write_version(tmp_path, version, provenance=provenance), run_id=None)
    told = api.get("/v1/models/20260103T000000-third000/provenance").json()
    assert told["ancestors"] == [
        {"version": "20260104T000000-fourth00", "run_id": None},
        {"version": "unknown", "run_id": None},
    ]
    assert api.get("/v1/models/20260105T000000-fifth000/provenance").json()["ancestors"] == []


def test_model_from_outside_has_what_its_bundle_knows(api: TestClient) -> None:
    told = api.get(f"/v1/models/{BAD}/provenance").json()
    assert (told["run"], told["snapshot"], told["labels"]) == (None, None, [])
    assert told["bundle"]["recipe"]["train"]["steps"] == 7
    assert api.get("/v1/models/unknown/provenance").status_code == 404
