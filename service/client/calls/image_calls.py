"""Calls of `/v1/images`: the image pool. An image's id is the SHA-256 of its bytes, so that adding it twice is safe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from service.client.answers import AddedLine, DeletedImage, PoolImage, PoolPage
from service.client.call import Call, Pages, Params, Request, Stream, Upload, bytes_call, model_call
from service.client.quoting import quoted

IMAGES = "/v1/images"
PAGE = 500
Which = Literal["all", "labelled", "unlabelled"]


def add_image(image: bytes) -> Call[PoolImage]:
    """Add an image file to the pool."""
    return model_call(PoolImage, Request(method="POST", path=IMAGES, content=image, repeatable=True))


def add_images(images: Sequence[Upload]) -> Stream[AddedLine]:
    """Add many image files to the pool; yields one line for each, in the order in which they are finished."""
    request = Request(method="POST", path=f"{IMAGES}/batch", form=images, repeatable=True)
    return Stream(request, AddedLine.model_validate_json)


def list_images(*, which: Which = "all") -> Pages[PoolImage]:
    """List the pool, newest first (scopes `contribute` and `train`)."""

    def page(cursor: str | None) -> Call[tuple[Sequence[PoolImage], str | None]]:
        one = pool_page(which=which, limit=PAGE, cursor=cursor)
        return Call(one.request, lambda response: ((found := one.parse(response)).images, found.next_cursor))

    return Pages(page)


def pool_page(
    *,
    which: Which = "all",
    limit: int = 100,
    cursor: str | None = None,
    order: Literal["newest", "uncertain"] = "newest",
    similar_to: str | None = None,
) -> Call[PoolPage]:
    """Get one page of the pool, with the numbers of labels.

    `order="uncertain"` lists what to label next, `similar_to` the images most like one; both go with `limit` only.
    """
    params = {"limit": limit, "cursor": cursor, "similar_to": similar_to}
    params |= {"which": None if which == "all" else which, "order": None if order == "newest" else order}
    return model_call(PoolPage, Request(method="GET", path=IMAGES, params=params, repeatable=True))


def get_image(image_id: str) -> Call[PoolImage]:
    """Get the record of an image."""
    return model_call(PoolImage, _get(image_id))


def image_content(image_id: str) -> Call[bytes]:
    """Get the bytes of an image, as they were sent."""
    return bytes_call(_get(image_id, "/content"))


def get_mask(image_id: str) -> Call[bytes]:
    """Get the label of an image, a grey PNG of class ids."""
    return bytes_call(_get(image_id, "/mask"))


def put_mask(
    image_id: str,
    mask: bytes,
    *,
    split: Literal["labelled", "val"] | None = None,
    group: str | None = None,
    partial: bool = False,
    classes_version: int | None = None,
) -> Call[PoolImage]:
    """Label an image with a PNG of class ids, of the size of the upright image.

    Args:
        image_id: The image.
        mask: The PNG; 255 marks pixels without a label.
        split: None: every fifth label goes to `val`, the others to `labelled`.
        group: The video, place or patient of the image; None: of its own.
        partial: Accept a mask of 0 and 255 only: the other pixels have no label.
        classes_version: Version of the class list of the ids; None: the present one.
    """
    params: Params = {
        "split": split,
        "group": group,
        "partial": partial or None,
        "classes_version": classes_version,
    }
    path = f"{IMAGES}/{quoted(image_id)}/mask"
    return model_call(PoolImage, Request(method="PUT", path=path, params=params, content=mask, repeatable=True))


def accept_mask(
    image_id: str,
    *,
    model: str | None = None,
    min_confidence: float | None = None,
    group: str | None = None,
    replace: bool = False,
) -> Call[PoolImage]:
    """Make a model's prediction the label of an image (scopes `contribute` and `predict`).

    Args:
        image_id: The image.
        model: Version of the model; None: the active one.
        min_confidence: Pixels of which the model is less confident get no label, 0..1.
        group: The video, place or patient of the image; None: of its own.
        replace: Replace the label if a person has drawn one.
    """
    params: Params = {"model": model, "min_confidence": min_confidence, "group": group, "replace": replace or None}
    path = f"{IMAGES}/{quoted(image_id)}/mask:accept"
    return model_call(PoolImage, Request(method="POST", path=path, params=params, repeatable=True))


def delete_image(image_id: str) -> Call[DeletedImage]:
    """Delete an image and its label."""
    return model_call(DeletedImage, Request(method="DELETE", path=f"{IMAGES}/{quoted(image_id)}"))


def _get(image_id: str, below: str = "") -> Request:
    return Request(method="GET", path=f"{IMAGES}/{quoted(image_id)}{below}", repeatable=True)
