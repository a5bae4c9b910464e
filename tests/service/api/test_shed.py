"""With all places taken, a segmentation is refused before its key and its query are looked at."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from service.state import State
from tests.service.conftest import MakeSettings, encoded, sample, serve
from tests.service.tiny_bundle import picture

URL = "/v1/segment"
ROUTE = {"method": "POST", "route": URL, "status": "503"}


def test_a_full_house_says_so_at_once(make_settings: MakeSettings) -> None:
    with serve(make_settings(max_concurrent_requests=1)) as client:
        state: State = client.app_state["maskloop"]
        assert client.post(URL, headers={"X-API-Key": "unknown"}).status_code == 401
        assert client.post(f"{URL}?tolerance_px=-1").status_code == 422
        assert client.portal is not None
        with client.portal.wrap_async_context_manager(state.segmenter.admission()):
            with patch.object(state.keys, "caller") as asked:
                answers = [
                    client.post(URL, headers={"X-API-Key": "unknown"}),
                    client.post(f"{URL}?tolerance_px=-1"),
                    client.post(URL, content=encoded(picture())),
                ]
            assert not asked.called
            for answer in answers:
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["type"] == "urn:maskloop:problem:overloaded"
                assert "MASKLOOP_MAX_CONCURRENT_REQUESTS" in answer.json()["detail"]
                assert answer.headers["x-request-id"]
                assert answer.headers["x-content-type-options"] == "nosniff"
            # Each is counted, once, and by the name of its route.
            assert sample(state.metrics, "maskloop_segment_rejected_total", reason="overloaded") == 3
            assert sample(state.metrics, "maskloop_requests_total", **ROUTE) == 3
            assert client.get("/livez").status_code == 200
        assert client.post(URL, content=encoded(picture())).status_code == 200


@pytest.mark.parametrize("path", ["/v1/segment/batch", "/v2/models/segment/infer"])
def test_others_than_single_images_are_still_told_of_their_key(make_settings: MakeSettings, path: str) -> None:
    with serve(make_settings(max_concurrent_requests=1)) as client:
        state: State = client.app_state["maskloop"]
        assert client.portal is not None
        with client.portal.wrap_async_context_manager(state.segmenter.admission()):
            assert client.post(path, headers={"X-API-Key": "unknown"}).status_code == 401
