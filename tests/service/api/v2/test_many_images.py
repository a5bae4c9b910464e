"""Many encoded images in one request: a few are processed at a time, within the limits of single images."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from service.open_inference.bytes_tensor import pack, unpack
from service.open_inference.tensor_spec import MAX_BATCH
from service.segmentation.decode import DecodedImage, EncodedImage, Pixels
from service.segmentation.pipeline import DECODED_AHEAD
from service.settings import Settings
from tests.service.api.v2.conftest import PNG, Response, Server, serving
from tests.service.conftest import MakeSettings, encoded, eventually
from tests.service.tiny_bundle import picture

THREADS = 1


@pytest.fixture
def server(make_settings: MakeSettings) -> Iterator[Server]:
    settings: Settings = make_settings(inference_threads=THREADS, max_image_pixels=100_000, max_wait_s=1.0)
    with serving(settings) as running:
        yield running


class Decoding:
    """Counts decoded images, and how many are in memory at the same time."""

    def __init__(self) -> None:
        self.count = 0
        self.peak = 0
        self.pause_s = 0.0
        self._images: list[weakref.ref[Pixels]] = []
        self._lock = threading.Lock()

    def record(self, image_HW3: Pixels) -> None:
        with self._lock:
            self.count += 1
            self._images.append(weakref.ref(image_HW3))
            self.peak = max(self.peak, sum(image() is not None for image in self._images))


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Decoding:
    decoding = Decoding()

    class ObservedImage(EncodedImage):
        def decode(self) -> DecodedImage:
            time.sleep(decoding.pause_s)
            image = super().decode()
            decoding.record(image.image_HW3)
            return image

    monkeypatch.setattr("service.segmentation.pipeline.EncodedImage", ObservedImage)
    return decoding


def infer(server: Server, files: list[bytes], **parameters: Any) -> Response:
    tensors = pack(files)
    input_ = {"name": "image_bytes", "datatype": "BYTES", "shape": [len(files)]}
    sized = input_ | {"parameters": {"binary_data_size": len(tensors)}}
    fields = {"inputs": [sized], "parameters": {"binary_data_output": True} | parameters}
    return server.infer_binary("seg_bytes", fields, tensors)


def test_few_images_are_decoded_at_the_same_time(server: Server, decoding: Decoding) -> None:
    images = [encoded(picture(seed=seed)) for seed in range(MAX_BATCH)]
    response = infer(server, images)
    assert response.status == 200
    head, tensors = response.split()
    sizes = {output["name"]: output["parameters"]["binary_data_size"] for output in head["outputs"]}
    masks = unpack(memoryview(tensors)[: sizes["mask_png"]], MAX_BATCH)
    assert masks == [
        infer(server, [file]).split()[1][4 : 4 + len(mask)] for file, mask in zip(images, masks, strict=True)
    ]
    assert decoding.count == 2 * MAX_BATCH
    # A thread may still hold one more.
    assert 1 <= decoding.peak <= THREADS + DECODED_AHEAD + 1
    assert server.state.metrics.registry.get_sample_value("maskloop_segment_admitted") == 0


def test_one_too_large_image_cancels_the_others(server: Server, decoding: Decoding) -> None:
    large = encoded(np.zeros((400, 300, 3), np.uint8))
    decoding.pause_s = 0.02
    response = infer(server, [PNG, large] + [PNG] * (MAX_BATCH - 2))
    assert response.status == 413
    assert "400" in response.error
    assert decoding.count < MAX_BATCH // 2


def test_deadline_applies_to_all_images_together(server: Server, decoding: Decoding) -> None:
    decoding.pause_s = 0.05
    response = infer(server, [PNG] * MAX_BATCH, timeout=300_000)
    assert response.status == 504
    done = decoding.count
    assert done < MAX_BATCH
    eventually(lambda: server.state.metrics.registry.get_sample_value("maskloop_segment_admitted") == 0)
    # Images in the threads are finished, and no other is started.
    time.sleep(0.3)
    assert decoding.count <= done + THREADS + DECODED_AHEAD


def test_request_that_waits_too_long_gets_503(server: Server) -> None:
    """The wait limit holds also if the estimate at admission was too low."""
    limiter = server.state.pipeline._cpu
    # As if an inference did not end.
    limiter._free_slots = 0
    with ThreadPoolExecutor(2 * THREADS) as pool:
        # This many may wait without a limit.
        others = [pool.submit(infer, server, [PNG]) for _ in range(2 * THREADS)]
        eventually(lambda: limiter.demand == 2 * THREADS)
        for files in ([PNG], [PNG] * 3):
            response = infer(server, files)
            assert response.status == 503
            assert int(response.headers["retry-after"]) >= 1
            assert "MASKLOOP_MAX_WAIT_S" in response.error
        limiter._free_slots = THREADS
        assert infer(server, [PNG] * 3).status == 200
        assert [other.result(20).status for other in others] == [200] * len(others)
