"""Which images of segmentations are kept, over HTTP and by hand-set clocks."""

from __future__ import annotations

import hashlib

import pytest

from service.images.collection_policy import CollectionPolicy
from tests.service.conftest import MakeSettings, encoded, serve
from tests.service.tiny_bundle import picture

URL = "/v1/segment"


def test_share_of_requests_is_sampled(make_settings: MakeSettings) -> None:
    draws = iter([0.0, 0.29, 0.3, 0.9])
    policy = CollectionPolicy(make_settings(collect_share=0.3), draw=lambda: next(draws))
    assert [policy.is_sampled() for _ in range(4)] == [True, True, False, False]
    assert not CollectionPolicy(make_settings(), draw=lambda: 0.0).is_sampled()
    assert CollectionPolicy(make_settings(collect_share=1.0)).is_sampled()


def test_only_uncertain_images_are_kept(make_settings: MakeSettings) -> None:
    policy = CollectionPolicy(make_settings(collect_below_confidence=0.8))
    assert [policy.refusal(confidence) for confidence in (0.79, 0.8, 1.0)] == [None, "confident", "confident"]
    assert CollectionPolicy(make_settings()).refusal(1.0) is None


def test_no_hour_has_more_images_than_the_limit(make_settings: MakeSettings) -> None:
    now = 0.0
    policy = CollectionPolicy(make_settings(collect_per_hour=2, collect_below_confidence=0.9), clock=lambda: now)
    kept = []
    for now in (0, 10, 20, 3599, 3600, 3601, 3611):  # noqa: B007 - the clock reads it
        kept.append(policy.refusal(0.5) is None)
        assert policy.refusal(0.95) == "confident", "is not counted"
    assert kept == [True, True, False, False, True, False, True]


def test_sampled_image_is_kept_and_the_client_gets_its_id(make_settings: MakeSettings) -> None:
    data = encoded(picture())
    with serve(make_settings(collect_share=1.0)) as client:
        answer = client.post(URL, content=data)
        assert answer.headers["x-image-id"] == hashlib.sha256(data).hexdigest()
        assert client.get("/v1/images").json()["unlabelled"] == 1


def test_nothing_is_kept_without_being_asked_by_default(make_settings: MakeSettings) -> None:
    with serve(make_settings()) as client:
        assert "x-image-id" not in client.post(URL, content=encoded(picture())).headers
        assert client.get("/v1/images").json()["unlabelled"] == 0


@pytest.mark.parametrize("contribute", [True, False])
def test_image_that_the_policy_skips_gets_its_mask(make_settings: MakeSettings, contribute: bool) -> None:
    with serve(make_settings(collect_share=1.0, collect_below_confidence=0.01)) as client:
        answer = client.post(URL, content=encoded(picture()), params={"contribute": contribute})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers.get("x-image-skipped") == ("confident" if contribute else None)
        assert client.get("/v1/images").json()["unlabelled"] == 0


def test_full_pool_refuses_uploads_and_keeps_answering_masks(make_settings: MakeSettings) -> None:
    first, second = encoded(picture()), encoded(picture(seed=1))
    with serve(make_settings(pool_max_bytes=len(first) + len(second) - 1)) as client:
        image_id = client.post("/v1/images", content=first).json()["id"]
        refused = client.post("/v1/images", content=second)
        assert (refused.status_code, refused.json()["type"].rsplit(":", 1)[-1]) == (507, "pool-full")
        answer = client.post(URL, content=second, params={"contribute": True})
        assert (answer.status_code, answer.headers["x-image-error"]) == (200, "pool-full")
        assert client.post("/v1/images", content=first).status_code == 200, "it has this image"
        client.delete(f"/v1/images/{image_id}")
        assert client.post("/v1/images", content=second).status_code == 201
