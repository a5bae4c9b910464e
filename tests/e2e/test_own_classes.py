"""A class list of one's own on a service that serves the starter model: from the first labels to a model for it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tomli_w

from tests.e2e.conftest import Group
from tests.e2e.test_real_loop import RECIPE, run_is_over
from tests.service.conftest import encoded, eventually, read
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture

SPLITS = ("labelled", "labelled", "labelled", "labelled", "val", "val")
ACCEPT = {"Accept": "application/json"}


def put_classes(client: httpx.Client, names: list[str], **fates: Any) -> None:
    present = client.get("/v1/classes").json()["version"]
    body = {"derived_from": present, "classes": [{"name": name} for name in names]} | fates
    client.put("/v1/classes", json=body).raise_for_status()


def send_labels(client: httpx.Client) -> dict[str, Any]:
    """Label six images with the five colours; returns the masks by image."""
    masks = {}
    for seed, split in enumerate(SPLITS):
        pixels = picture(seed=seed)
        image_id = client.post("/v1/images", content=encoded(pixels)).raise_for_status().json()["id"]
        masks[image_id] = nearest(pixels, COLORS)
        data = encoded(masks[image_id])
        client.put(f"/v1/images/{image_id}/mask", params={"split": split}, content=data).raise_for_status()
    return masks


def shown_names(client: httpx.Client) -> set[str]:
    answer = client.post("/v1/segment", content=encoded(picture(seed=70)), headers=ACCEPT).raise_for_status().json()
    return {each["name"] for each in answer["classes"]}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_classes_from_nothing_and_then_one_more(up: Callable[..., Group], tmp_path: Path) -> None:
    pytest.importorskip("trainer.config", reason="the trainer is not installed")
    pytest.importorskip("exporter.export", reason="the exporter is not installed")
    template = tmp_path / "recipe.toml"
    own = {"method": "supervised", "inference": {"long_side": 0}, "train": RECIPE["train"] | {"steps": 8}}
    template.write_text(tomli_w.dumps(RECIPE | own))
    group = up(retrain_after_images=0, retrain_after_labels=0, recipe=template, precision="fp32")
    with group.client(timeout=60) as client:
        streets = [each["name"] for each in client.get("/v1/classes").json()["classes"]]
        assert "pavement" in streets
        put_classes(client, list(NAMES), retired=streets)
        masks = send_labels(client)
        eventually(lambda: client.post("/v1/runs").status_code == 201, within_s=60)
        eventually(lambda: run_is_over(client), within_s=600)
        (run,) = client.get("/v1/runs").json()["runs"]
        assert (run["status"], run["classes_version"]) == ("judged", 2), run["error"]
        # It cannot be compared with a model of street scenes.
        (release,) = client.get("/v1/releases").json()["releases"]
        assert (release["state"], "first model of the class list" in release["reason"]) == ("asked", True)
        client.post(f"/v1/releases/{release['id']}/release", params={"reason": "a look"}).raise_for_status()
        eventually(lambda: shown_names(client) <= set(NAMES), within_s=30)

        # One class more, before the others, and a new name for one.
        put_classes(client, ["tree", *reversed(NAMES[1:]), "rose"], renamed={"red": "rose"})
        assert shown_names(client) <= {*NAMES[1:], "rose"}
        for image_id, mask in masks.items():
            np.testing.assert_array_equal(read(client.get(f"/v1/images/{image_id}/mask").content), 5 - mask)
        second = client.post("/v1/runs").raise_for_status().json()
        with client.stream("GET", f"/v1/runs/{second['id']}/events") as events:
            lines = list(takewhile(lambda line: "progress" not in line, events.iter_lines()))
        assert any("carried over" in line and "rose = red" in line and "new: tree" in line for line in lines)
        client.post(f"/v1/runs/{second['id']}/cancel").raise_for_status()
        recipe = tomllib.loads(client.get(f"/v1/runs/{second['id']}/recipe").text)
        assert recipe["init_classes"] == {"rose": "red"}
        eventually(lambda: run_is_over(client), within_s=60)
