"""Many files in one request: each goes the way of all images, a few at a time, within the limits of all."""

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
from service.open_inference.tensor_spec import LARGEST_BATCH
from service.segmentation.decode import DecodedImage, EncodedImage, Pixels
from service.segmentation.pipeline import DECODED_AHEAD
from service.settings import Settings
from tests.service.api.v2.conftest import PNG, Answer, Server, serving
from tests.service.conftest import MakeSettings, encoded, eventually
from tests.service.tiny_bundle import picture

THREADS = 1


@pytest.fixture
def one(make_settings: MakeSettings) -> Iterator[Server]:
    settings: Settings = make_settings(inference_threads=THREADS, max_image_pixels=100_000, max_wait_s=1.0)
    with serving(settings) as running:
        yield running


class Decoding:
    """Looks at what is decoded, and how much of it is in memory at one time."""

    def __init__(self) -> None:
        self.begun = 0
        self.most = 0
        self.pause_s = 0.0
        self._images: list[weakref.ref[Pixels]] = []
        self._lock = threading.Lock()

    def record(self, image_HW3: Pixels) -> None:
        with self._lock:
            self.begun += 1
            self._images.append(weakref.ref(image_HW3))
            self.most = max(self.most, sum(image() is not None for image in self._images))


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Decoding:
    seen = Decoding()

    class ObservedImage(EncodedImage):
        def decode(self) -> DecodedImage:
            time.sleep(seen.pause_s)
            image = super().decode()
            seen.record(image.image_HW3)
            return image

    monkeypatch.setattr("service.segmentation.pipeline.EncodedImage", ObservedImage)
    return seen


def infer(server: Server, files: list[bytes], **parameters: Any) -> Answer:
    tensors = pack(files)
    given = {"name": "image_bytes", "datatype": "BYTES", "shape": [len(files)]}
    sized = given | {"parameters": {"binary_data_size": len(tensors)}}
    asked = {"inputs": [sized], "parameters": {"binary_data_output": True} | parameters}
    return server.infer_binary("seg_bytes", asked, tensors)


def test_few_are_decoded_at_one_time(one: Server, decoding: Decoding) -> None:
    pictures = [encoded(picture(seed=seed)) for seed in range(LARGEST_BATCH)]
    answer = infer(one, pictures)
    assert answer.status == 200
    head, tensors = answer.split()
    sizes = {output["name"]: output["parameters"]["binary_data_size"] for output in head["outputs"]}
    masks = unpack(memoryview(tensors)[: sizes["mask_png"]], LARGEST_BATCH)
    assert masks == [
        infer(one, [file]).split()[1][4 : 4 + len(mask)] for file, mask in zip(pictures, masks, strict=True)
    ]
    assert decoding.begun == 2 * LARGEST_BATCH
    # One more may be on its way out of a thread.
    assert 1 <= decoding.most <= THREADS + DECODED_AHEAD + 1
    assert one.state.metrics.registry.get_sample_value("maskloop_segment_admitted") == 0


def test_one_beyond_the_pixels_ends_the_others(one: Server, decoding: Decoding) -> None:
    large = encoded(np.zeros((400, 300, 3), np.uint8))
    decoding.pause_s = 0.02
    answer = infer(one, [PNG, large] + [PNG] * (LARGEST_BATCH - 2))
    assert answer.status == 413
    assert "400" in answer.error
    assert decoding.begun < LARGEST_BATCH // 2


def test_the_deadline_is_that_of_all_together(one: Server, decoding: Decoding) -> None:
    decoding.pause_s = 0.05
    answer = infer(one, [PNG] * LARGEST_BATCH, timeout=300_000)
    assert answer.status == 504
    done = decoding.begun
    assert done < LARGEST_BATCH
    eventually(lambda: one.state.metrics.registry.get_sample_value("maskloop_segment_admitted") == 0)
    # Those in the threads go on to their end, and no other begins.
    time.sleep(0.3)
    assert decoding.begun <= done + THREADS + DECODED_AHEAD


def test_the_first_waits_no_longer_than_one_may(one: Server) -> None:
    """As every image that was let in, should the wait turn out longer than was expected."""
    limiter = one.state.pipeline._cpu
    # As if an inference went on and on.
    limiter._free_slots = 0
    with ThreadPoolExecutor(2 * THREADS) as pool:
        # So few may wait for any time.
        others = [pool.submit(infer, one, [PNG]) for _ in range(2 * THREADS)]
        eventually(lambda: limiter.demand == 2 * THREADS)
        for files in ([PNG], [PNG] * 3):
            answer = infer(one, files)
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "MASKLOOP_MAX_WAIT_S" in answer.error
        limiter._free_slots = THREADS
        assert infer(one, [PNG] * 3).status == 200
        assert [other.result(20).status for other in others] == [200] * len(others)
