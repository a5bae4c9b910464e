"""Tune glibc's malloc (mallopt, malloc_trim) for a server that runs inferences in many threads."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
ARENAS = 2
MMAP_THRESHOLD_BYTES = 32 * 2**20
"""Larger allocations return to the system when freed. glibc's maximum."""
NEVER = -1


def configure_malloc() -> bool:
    """Share two arenas among all threads and keep freed memory until `trim_heap`; return whether libc supports this.

    Call it before any thread exists. By default glibc has up to eight arenas per core, each of which keeps the memory
    of its largest image: with a dozen threads and mixed sizes, resident memory grows for thousands of requests. Two
    cost no measurable speed. By default glibc also returns freed memory after each inference; the next one gets it back
    page by page, zeroed: 10 % or more of its time.
    """
    mallopt = _libc("mallopt")
    wanted = ((M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES), (M_TRIM_THRESHOLD, NEVER))
    # mallopt returns 1 on success.
    return mallopt is not None and all(mallopt(parameter, value) == 1 for parameter, value in wanted)


def trim_heap() -> bool:
    """Return free memory to the system, in tens of milliseconds; return whether there was any."""
    malloc_trim = _libc("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))


def _libc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
