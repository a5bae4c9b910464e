"""The memory in which inferences on a CPU compute: one arena for all graphs of a process.

From the second image of a size on, onnxruntime takes most of what it needs as one block (its memory pattern). The C
library would map such a block anew for each image, to be filled with zeros page by page: up to a third of an
inference's time. An arena for each session would keep the most that each of them ever needed.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any, ClassVar

import numpy as np

from service import allocator

REGION_BYTES = 2**26
"""By so much the arena grows, or by what is asked for where that is more. An image of usual size needs one region.

More than `allocator.MMAP_THRESHOLD_BYTES`, so that the C library maps it, counts it as mapped, and unmaps it when
it is free.
"""

KEPT_BYTES = 2**27
"""What may stay mapped after an inference for the next ones, for each core. So much is used only by larger images."""

FIRST_BYTES = 4096
"""Of the region that onnxruntime never gives back."""

NOT = bytes.fromhex(
    "0808 1200 3a32 0a0b 0a0178 120179 22034e6f74 120167"
    "5a0f 0a0178 120a 0a08 0809 1204 0a020801 620f 0a0179 120a 0a08 0809 1204 0a020801 4204 0a00100d"
)
"""The smallest graph there is to run: `y = Not(x)`, of bool [1], at opset 13."""


class Arena:
    """One of onnxruntime's, shared by the sessions that were opened with `USED`. May be asked from any thread.

    Args:
        ort: The onnxruntime module. It takes only one such arena in its life: see `shared_arena`.
    """

    USED: ClassVar = {"session.use_env_allocators": "1", "session.use_device_allocator_for_initializers": "1"}
    """Entries of a session's configuration: to compute in here; and to hold the weights elsewhere, as their memory
    would never be free."""

    def __init__(self, ort: Any) -> None:
        growth = {
            "arena_extend_strategy": 0,  # by powers of two: with "as requested", no two images would share a region
            "initial_chunk_size_bytes": FIRST_BYTES,
            "initial_growth_chunk_size_bytes": REGION_BYTES,
            "max_power_of_two_extend_bytes": REGION_BYTES,
            "max_dead_bytes_per_chunk": FIRST_BYTES,
            "max_mem": 0,
        }
        where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(where, ort.OrtArenaCfg(growth))
        # It can be told to shrink only at the end of an inference.
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        for name, value in self.USED.items():
            options.add_session_config_entry(name, value)
        self._least = ort.InferenceSession(NOT, options, providers=["CPUExecutionProvider"])
        self._shrinking = ort.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.shrink()

    def shrink(self) -> None:
        """Give regions back in which nothing lies at the moment."""
        self._least.run(None, {"x": np.zeros(1, np.bool_)}, self._shrinking)

    def tidy(self, *, cores: int, early: bool) -> None:
        """Shrink after an inference, where it was an `early` one of its size or more is mapped than may be kept.

        The first of a size takes tensor by tensor, and nearly twice of what the next ones will.
        """
        if early or mapped_bytes() > KEPT_BYTES * cores:
            self.shrink()


@cache
def shared_arena() -> Arena:
    """The process's arena; made when it is first asked for."""
    import onnxruntime as ort  # noqa: PLC0415 - 0.7 s, in the thread that loads and not before the port is open

    return Arena(ort)


def give_back() -> None:
    """All that inferences and images have left, to the system; for when nothing else goes on."""
    shared_arena().shrink()
    allocator.trim_heap()


TOLD = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Told(ctypes.Structure):
    """What mallinfo2(3) tells."""

    _fields_ = [(name, ctypes.c_size_t) for name in TOLD]


def mapped_bytes() -> int:
    """Memory that the C library has mapped by itself, for this arena and for large arrays: tens of microseconds.

    Where the library does not tell, so much that nothing may be kept.
    """
    mallinfo = _mallinfo()
    return int(mallinfo().hblkhd) if mallinfo is not None else sys.maxsize


@cache
def _mallinfo() -> Any:
    found = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform.startswith("linux") else None
    if found is not None:
        found.restype = _Told
    return found
