"""Tune glibc's malloc (mallopt, malloc_trim) for a server that runs inferences in many threads."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3)."""

ARENAS = 2

MMAP_THRESHOLD_BYTES = 32 * 2**20
"""Larger allocations use mmap and return to the system when they are freed. This is glibc's maximum. The tensors of a
typical image are smaller; those of a very large image are not."""

NEVER = -1
"""Disables trimming of the heap's end (M_TRIM_THRESHOLD)."""


def configure_malloc() -> bool:
    """Share two arenas among all threads, and keep freed memory in them. Call it before any thread exists.

    By default glibc has up to eight arenas per core, and each keeps the memory of the largest image that its threads
    processed: with a dozen threads and mixed image sizes, resident memory grows for thousands of requests. Two arenas
    cost no measurable speed.

    By default glibc also returns freed memory to the system after each inference. The next inference gets it back page
    by page, each zeroed: thousands of page faults per image, 10 % or more of its time. Here the memory is kept; call
    `trim_heap` when the service is idle.

    Returns:
        Whether the C library supports these parameters.
    """
    mallopt = _libc("mallopt")
    wanted = ((M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES), (M_TRIM_THRESHOLD, NEVER))
    # mallopt returns 1 on success.
    return mallopt is not None and all(mallopt(parameter, value) == 1 for parameter, value in wanted)


def trim_heap() -> bool:
    """Return free memory inside the heap to the system. Takes tens of milliseconds: call it when idle.

    Returns:
        Whether any memory was returned.
    """
    malloc_trim = _libc("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))


def _libc(name: str) -> Any:
    """A function of the C library; None on other systems, or if the library lacks it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
