"""Both clients on a real service."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from service.client.async_client import AsyncClient
from service.client.call import Upload
from service.client.call_errors import Invalid, KeyRefused, Missing
from service.client.sync_client import Client
from tests.service.client.conftest import write_pictures
from tests.service.conftest import TEST_KEY, encoded, read
from tests.service.tiny_bundle import COLORS, nearest, picture

PHOTO, MASK = encoded(picture()), nearest(picture(), COLORS)


def test_image_is_segmented(client: Client) -> None:
    np.testing.assert_array_equal(read(client.segment_mask(PHOTO)), MASK)
    found = client.segment(PHOTO, masks="png", classes=["red", "green"], contribute=False)
    assert (found.width, found.height) == MASK.shape[::-1]
    assert {region.name for region in found.classes} == {"red", "green"}
    kept = np.where(MASK < 2, MASK, 255)
    np.testing.assert_array_equal(read(base64.b64decode(found.mask_png or "")), kept)
    assert client.segment_overlay(PHOTO, legend=False).startswith(b"\xff\xd8")
    assert client.ready().model == found.model


def test_batch_yields_lines_of_files_and_bytes(client: Client, tmp_path: Path) -> None:
    write_pictures(tmp_path, "photo.png")
    lines = sorted(
        client.segment_batch([Upload.of(tmp_path / "photo.png"), Upload("broken", b"x")]), key=lambda line: line.index
    )
    assert [(line.filename, line.status) for line in lines] == [("photo.png", 200), ("broken", 415)]
    assert lines[0].result is not None
    assert lines[1].problem is not None
    assert lines[1].problem.type.endswith("image-unsupported")


def test_labels_make_the_round_trip(client: Client) -> None:
    image = client.add_image(PHOTO)
    labelled = client.put_mask(image.id, encoded(MASK), split="val", group="video 1")
    assert (labelled.split, labelled.group) == ("val", "video 1")
    np.testing.assert_array_equal(read(client.get_mask(image.id)), MASK)
    assert client.image_content(image.id) == PHOTO
    with pytest.raises(Invalid, match="must be a class id, not a colour"):
        client.put_mask(image.id, PHOTO)
    assert client.delete_image(image.id).models == []
    with pytest.raises(Missing) as caught:
        client.get_image(image.id)
    assert caught.value.slug == "image-not-found"


def test_pages_are_joined(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.calls.image_calls.PAGE", 2)
    ids = {client.add_image(encoded(picture(seed=seed))).id for seed in range(20, 25)}
    listed = [image.id for image in client.list_images()]
    assert ids <= set(listed)
    assert len(listed) == len(set(listed))


def test_ids_with_slashes_stay_one_segment(client: Client) -> None:
    with pytest.raises(Missing):
        client.get_model("../runs")


def test_key_without_a_scope_is_refused(url: str) -> None:
    with Client(url, "nonsense") as stranger, pytest.raises(KeyRefused, match="unknown"):
        next(stranger.list_runs())


@pytest.mark.anyio
async def test_async_client_does_the_same(url: str) -> None:
    async with AsyncClient(url, TEST_KEY) as client:
        np.testing.assert_array_equal(read(await client.segment_mask(PHOTO)), MASK)
        lines = [line async for line in client.add_images([Upload("a.png", PHOTO), Upload("b", b"x")])]
        assert {line.filename: line.status for line in lines} in ({"a.png": 201, "b": 415}, {"a.png": 200, "b": 415})
        assert [image.id async for image in client.list_images()]
        with pytest.raises(Missing):
            await client.get_run("none")
        bundle = Upload("bundle.zip", b"no bundle")
        with pytest.raises(Invalid):
            await client.upload_model(bundle)
