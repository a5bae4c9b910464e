"""One onnxruntime memory arena, shared by all CPU sessions of the process.

From the second image of a size on, onnxruntime allocates most of an inference's memory as one block (its "memory
pattern"). Without an arena, the C library maps this block again for every image, and the page faults take up to a third
of the inference's time. An arena per session would keep the largest block of each session forever.

Measured with the fp32 starter, 8 concurrent requests of about 640x480 pixels on two cores: resident memory is 24 %
higher with the plain C library and 22 % higher with a preloaded mimalloc 3.4; neither is faster.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any, ClassVar

import numpy as np

from service import allocator

REGION_BYTES = 2**26
"""Size of the arena's regions, except for larger blocks. One holds an image of usual size.

It exceeds `allocator.MMAP_THRESHOLD_BYTES`, so the C library maps each region separately, reports it in `mallinfo2`,
and unmaps it when the arena frees it.
"""

KEPT_BYTES = 2**27
"""Most mapped memory per core to keep between inferences. Only large images use more."""

FIRST_REGION_BYTES = 4096
"""Size of the first region, which onnxruntime never frees."""


class Arena:
    """The arena of sessions opened with `SESSION_CONFIG`. All methods are thread-safe.

    A process can register only one with onnxruntime (`ort`): use `shared_arena`.
    """

    SESSION_CONFIG: ClassVar = {
        "session.use_env_allocators": "1",
        # Weights are allocated elsewhere: the arena could not free a region that contains them.
        "session.use_device_allocator_for_initializers": "1",
    }

    def __init__(self, ort: Any) -> None:
        config = {
            "arena_extend_strategy": 0,  # powers of two; "as requested" would give each image a region of its own
            "initial_chunk_size_bytes": FIRST_REGION_BYTES,
            "initial_growth_chunk_size_bytes": REGION_BYTES,
            "max_power_of_two_extend_bytes": REGION_BYTES,
            "max_dead_bytes_per_chunk": FIRST_REGION_BYTES,
            "max_mem": 0,  # no limit
        }
        info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(info, ort.OrtArenaCfg(config))
        # onnxruntime shrinks an arena only at the end of an inference, so `shrink` runs the smallest possible graph.
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        for name, value in self.SESSION_CONFIG.items():
            options.add_session_config_entry(name, value)
        self._session = ort.InferenceSession(smallest_graph(), options, providers=["CPUExecutionProvider"])
        self._shrink_options = ort.RunOptions()
        self._shrink_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.shrink()

    def shrink(self) -> None:
        """Free all unused regions."""
        self._session.run(None, {"x": np.zeros(1, np.bool_)}, self._shrink_options)

    def shrink_after_run(self, *, cores: int, is_new_shape: bool) -> None:
        """Shrink after an inference of a new input shape, or if more than `KEPT_BYTES` per core is mapped.

        The first run of an input shape allocates per tensor and peaks at almost twice the memory of later runs.
        """
        if is_new_shape or mapped_bytes() > KEPT_BYTES * cores:
            self.shrink()


@cache
def shared_arena() -> Arena:
    """The arena of this process."""
    import onnxruntime as ort  # noqa: PLC0415 - takes 0.7 s; the loading thread imports it

    return Arena(ort)


def release_memory() -> None:
    """Return unused memory of the arena and the heaps to the system. Takes tens of milliseconds."""
    shared_arena().shrink()
    allocator.trim_heap()


def smallest_graph() -> bytes:
    """A serialised ONNX model with one node, `y = Not(x)` of bool [1]: the service does not depend on `onnx`.

    The field numbers are those of onnx.proto.
    """
    one_bool = _field(1, _field(1, 9) + _field(2, _field(1, _field(1, 1))))  # TypeProto: tensor, BOOL, shape [1]
    node = _field(1, b"x") + _field(2, b"y") + _field(4, b"Not")
    inputs, outputs = (_field(1, name) + _field(2, one_bool) for name in (b"x", b"y"))
    graph = _field(1, node) + _field(2, b"g") + _field(11, inputs) + _field(12, outputs)
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, 13))  # IR version 8, opset 13


def _field(number: int, value: int | bytes) -> bytes:
    """A protobuf field: an integer below 128, or less than 128 bytes."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


class _Mallinfo2(ctypes.Structure):
    """Result of mallinfo2(3): ten counters; the fifth is `hblkhd`, the bytes in separate mappings."""

    _fields_: ClassVar = [("counters", ctypes.c_size_t * 10)]


def mapped_bytes() -> int:
    """Memory that the C library maps separately, for the arena and large arrays. Takes tens of microseconds.

    Without mallinfo2, returns a number so large that nothing is kept.
    """
    mallinfo2 = _mallinfo2()
    return int(mallinfo2().counters[4]) if mallinfo2 is not None else sys.maxsize


@cache
def _mallinfo2() -> Any:
    found = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform.startswith("linux") else None
    if found is not None:
        found.restype = _Mallinfo2
    return found
