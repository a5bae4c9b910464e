"""What the C library does with memory that is free again."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3)."""

ARENAS = 2

LARGE_BYTES = 32 * 2**20
"""What is larger is mapped by itself and goes back as soon as it is free: the most that the library allows. All that
a network holds of a usual image is smaller, and all of a whole large one is not."""

NEVER = -1
"""The threshold above which a heap's free end is handed back, by the manual's own word for none."""


def prepare_heaps() -> bool:
    """Let threads share their heaps, and let these keep what was freed. To be called before there are any threads.

    The C library gives each thread a heap of its own, up to eight a core, and each keeps what the largest image that
    came its way needed: with a dozen threads and images of mixed sizes the resident memory grows for thousands of
    requests. Two heaps for all cost no speed that could be measured.

    By default it also hands most of what an inference frees back at once and takes it anew for the next one, page by
    page, each filled with zeros: thousands of faults an image, a tenth and more of its time. Here it is kept for as
    long as requests come, and `give_back` is for afterwards.

    Returns:
        Whether this C library has heard of it.
    """
    mallopt = _libc("mallopt")
    wanted = ((M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, LARGE_BYTES), (M_TRIM_THRESHOLD, NEVER))
    # The call answers 1 where it is obeyed.
    return mallopt is not None and all(mallopt(parameter, value) == 1 for parameter, value in wanted)


def give_back() -> bool:
    """Hand to the system what is free in between, too: tens of milliseconds, for when nothing else goes on.

    Returns:
        Whether there was any.
    """
    malloc_trim = _libc("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))


def _libc(name: str) -> Any:
    """A function of the C library; None on another system, or in a library that does not have it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
