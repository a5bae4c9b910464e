"""Shadow and canary releases over HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.releases.rollout.candidate_model import is_chosen
from service.state import State
from tests.service.conftest import MakeSettings, encoded, eventually, read, serve
from tests.service.releases.releasing import release_version
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture, write_bundle

FIRST, CANDIDATE = "20260101T000000-aaaaaaaa", "20260102T000000-swapped0"
# The candidate takes red for green and green for red.
SWAPPED = (COLORS[1], COLORS[0], *COLORS[2:])
CLASSES = [{"id": i, "name": n, "color": list(c)} for i, (n, c) in enumerate(zip(NAMES, COLORS, strict=True))]

Rollout = Callable[..., tuple[TestClient, State, int]]


@pytest.fixture
def rollout(make_settings: MakeSettings, tmp_path: Path) -> Iterator[Rollout]:
    """Return a function that starts a service whose settings roll a candidate out."""
    clients: list[TestClient] = []

    def start(max_height: int | None = None, before: int = 0, **changes: Any) -> tuple[TestClient, State, int]:
        settings = make_settings(**changes)
        client = serve(settings)
        client.__enter__()
        clients.append(client)
        for _ in range(before):
            client.post("/v1/segment", content=encoded(picture())).raise_for_status()
        state: State = client.app_state["maskloop"]
        bundle = write_bundle(
            tmp_path / "swapped", version=CANDIDATE, colors=SWAPPED, classes=CLASSES, max_height=max_height
        )
        state.models.import_folder(bundle, state="candidate")
        release_id = release_version(state, CANDIDATE, settings)
        # The candidate is loaded when the present tick has ended.
        eventually(lambda: state.candidates._current is not None)
        return client, state, release_id

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def test_shadow_is_unseen_and_its_disagreement_recorded(rollout: Rollout) -> None:
    client, _, release_id = rollout(release_mode="shadow", shadow_share=1.0)
    image = picture()
    expected = nearest(image, COLORS)
    response = client.post("/v1/segment", content=encoded(image))
    assert response.headers["x-model-version"] == FIRST
    np.testing.assert_array_equal(read(response.content), expected)
    url = f"/v1/releases/{release_id}"
    eventually(lambda: client.get(url).json()["disagreement"] is not None)
    found = client.get(url).json()["disagreement"]
    assert (found["images"], found["dropped"], found["errors"]) == (1, 0, 0)
    assert found["by_class"] == {name: float(name in ("red", "green")) for name in NAMES}
    assert found["share"] == np.isin(expected, (0, 1)).mean()
    released = client.post(f"{url}/release", params={"reason": "the differences are right"}).json()
    assert (released["state"], released["watched"]) == ("serving", True)


def test_shadow_takes_its_share_and_not_chosen_versions(rollout: Rollout) -> None:
    client, state, release_id = rollout(release_mode="shadow", shadow_share=0.25)
    image = encoded(picture())
    for _ in range(8):
        client.post("/v1/segment", params={"model": FIRST}, content=image).raise_for_status()
    for number in range(8):
        client.post("/v1/segment", content=image).raise_for_status()
        # The candidate is idle again before the next.
        eventually(partial(is_compared, state, release_id, (number + 1) // 4))


def is_compared(state: State, release_id: int, images: int) -> bool:
    state.release_watch.tick()
    found = state.releases.get(release_id).shadow
    return (found["images"] if found else 0) == images


def test_pipeline_is_busy_while_a_request_is_in_progress(rollout: Rollout, monkeypatch: pytest.MonkeyPatch) -> None:
    client, state, _ = rollout(release_mode="shadow")
    busy: list[bool] = []
    engine = state.active_model.require().engine
    run = engine.run

    def observed(*arguments: Any) -> Any:
        # The admission has stopped an inference of the shadow.
        busy.append(state.shadow._is_busy() and inference())
        return run(*arguments)

    inference = state.shadow._inference
    monkeypatch.setattr(engine, "run", observed)
    client.post("/v1/segment", content=encoded(picture())).raise_for_status()
    assert busy == [True]
    assert not state.shadow._is_busy()


def test_candidate_that_fails_as_shadow_costs_no_request(rollout: Rollout) -> None:
    client, state, release_id = rollout(max_height=30, release_mode="shadow", shadow_share=1.0)
    for _ in range(3):
        assert client.post("/v1/segment", content=encoded(picture())).status_code == 200
    eventually(lambda: compared_errors(state, release_id) >= 1)


def compared_errors(state: State, release_id: int) -> int:
    state.release_watch.tick()
    found = state.releases.get(release_id).shadow
    return int(found["errors"]) if found else 0


def test_canary_answers_its_share_and_then_serves(rollout: Rollout) -> None:
    client, _, release_id = rollout(release_mode="canary", canary_share=0.5, canary_requests=10)
    url = f"/v1/releases/{release_id}"
    answers: dict[str, int] = {}
    for seed in range(100):
        pixels = picture(seed=seed)
        image = encoded(pixels)
        if client.get(url).json()["state"] != "canary":
            break
        response = client.post("/v1/segment", content=image)
        version = response.headers["x-model-version"]
        answers[version] = answers.get(version, 0) + 1
        assert version == (CANDIDATE if is_chosen(image, CANDIDATE, 0.5) else FIRST) or len(answers) == 2
        colors = SWAPPED if version == CANDIDATE else COLORS
        np.testing.assert_array_equal(read(response.content), nearest(pixels, colors))
        chosen = client.post("/v1/segment", params={"model": FIRST}, content=image)
        assert chosen.headers["x-model-version"] == FIRST
    assert answers[FIRST] > 0
    assert answers[CANDIDATE] >= 10
    release = client.get(url).json()
    assert (release["state"], release["watched"], release["decided_by"]) == ("serving", True, None)
    assert "as the canary of" in release["reason"]
    eventually(lambda: client.get("/readyz").json()["model"] == CANDIDATE)


def test_canary_answers_its_share_of_a_batch(rollout: Rollout) -> None:
    client, _, _ = rollout(release_mode="canary", canary_share=0.5)
    images = [encoded(picture(seed=seed)) for seed in range(16)]
    form = [("file", (str(number), image, "image/png")) for number, image in enumerate(images)]
    response = client.post("/v1/segment/batch", files=form)
    assert response.headers["x-model-version"] == FIRST
    answered = {line["index"]: line["result"] for line in map(json.loads, response.text.splitlines())}
    for number, image in enumerate(images):
        assert answered[number]["model"] == (CANDIDATE if is_chosen(image, CANDIDATE, 0.5) else FIRST)
    assert {result["model"] for result in answered.values()} == {FIRST, CANDIDATE}
    chosen = client.post("/v1/segment/batch", params={"model": FIRST}, files=form).text.splitlines()
    assert {json.loads(line)["result"]["model"] for line in chosen} == {FIRST}


@pytest.mark.parametrize("model", ["seg", "seg_bytes", "tiny"])
def test_canary_answers_v2_requests_that_name_no_version(rollout: Rollout, model: str) -> None:
    client, _, _ = rollout(release_mode="canary", canary_share=1.0)
    image = picture()
    answer = infer(client, f"/v2/models/{model}/infer", model, image)
    assert (answer["model_version"], answer["parameters"]["bundle_version"]) == ("2", CANDIDATE)
    if model != "seg_bytes":
        mask = next(output for output in answer["outputs"] if output["name"] == "mask")
        np.testing.assert_array_equal(np.reshape(mask["data"], image.shape[:2]), nearest(image, SWAPPED))
    named = infer(client, f"/v2/models/{model}/versions/1/infer", model, image)
    assert named["parameters"]["bundle_version"] == FIRST
    (stats,) = client.get(f"/v2/models/{model}/versions/2/stats").json()["model_stats"]
    assert stats["inference_count"] == 1


def infer(client: TestClient, path: str, model: str, image: np.ndarray[Any, Any]) -> dict[str, Any]:
    if model == "seg_bytes":
        data: list[Any] = [base64.b64encode(encoded(image)).decode()]
        tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": data}
    else:
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *image.shape], "data": image.tolist()}
    response = client.post(path, json={"inputs": [tensor]})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert response.headers["x-model-version"] == answer["parameters"]["bundle_version"]
    return answer


def test_active_model_answers_batches_and_v2_if_the_canary_fails(rollout: Rollout) -> None:
    client, _, _ = rollout(max_height=30, release_mode="canary", canary_share=1.0)
    batch = client.post("/v1/segment/batch", files=[("file", ("a", encoded(picture()), "image/png"))])
    assert json.loads(batch.text)["result"]["model"] == FIRST
    answer = infer(client, "/v2/models/seg/infer", "seg", picture())
    assert (answer["model_version"], answer["parameters"]["bundle_version"]) == ("1", FIRST)
    # An image that no model can segment is the client's fault, and answered once.
    broken = client.post("/v1/segment", content=encoded(picture())[:200])
    assert broken.status_code == 400


@pytest.mark.parametrize("way", ["batch", "seg", "seg_bytes"])
def test_shadow_also_segments_images_of_batches_and_of_v2(rollout: Rollout, way: str) -> None:
    client, state, release_id = rollout(release_mode="shadow", shadow_share=1.0)
    if way == "batch":
        client.post("/v1/segment/batch", files=[("file", ("a", encoded(picture()), "image/png"))]).raise_for_status()
    else:
        infer(client, f"/v2/models/{way}/versions/1/infer", way, picture())
        infer(client, f"/v2/models/{way}/infer", way, picture())
    eventually(lambda: is_compared(state, release_id, 1))
    found = state.releases.get(release_id).shadow
    assert found is not None
    assert (found["dropped"], found["errors"]) == (0, 0)


def test_canary_that_fails_is_withdrawn_and_the_active_model_answers(rollout: Rollout) -> None:
    client, state, release_id = rollout(max_height=30, before=20, release_mode="canary", canary_share=0.5)
    url = f"/v1/releases/{release_id}"
    for seed in range(200):
        if client.get(url).json()["state"] != "canary":
            break
        pixels = picture(seed=seed)
        response = client.post("/v1/segment", content=encoded(pixels))
        assert (response.status_code, response.headers["x-model-version"]) == (200, FIRST)
        np.testing.assert_array_equal(read(response.content), nearest(pixels, COLORS))
    release = client.get(url).json()
    assert release["state"] == "withdrawn"
    assert "inferences failed" in release["reason"]
    assert client.get("/v1/models").json()["desired"] == FIRST
    assert state.models.get(CANDIDATE).state == "withdrawn"
    eventually(lambda: state.candidates._current is None)
    assert client.post("/v1/segment", content=encoded(picture(seed=0))).headers["x-model-version"] == FIRST


def test_person_ends_a_canary(rollout: Rollout) -> None:
    client, state, release_id = rollout(release_mode="canary", canary_share=1.0)
    image = encoded(picture())
    assert client.post("/v1/segment", content=image).headers["x-model-version"] == CANDIDATE
    client.post(f"/v1/releases/{release_id}/decline", params={"reason": "wrong"}).raise_for_status()
    eventually(lambda: state.candidates._current is None)
    assert client.post("/v1/segment", content=image).headers["x-model-version"] == FIRST
