"""What the C library does with memory that is free again."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

M_ARENA_MAX = -8
"""Parameter of mallopt(3)."""

ARENAS = 2


def keep_few_arenas() -> bool:
    """Let threads share their heaps. To be called before there are any.

    The C library gives each thread a heap of its own, up to eight a core, and each keeps what the largest image that
    came its way needed: with a dozen threads and images of mixed sizes the resident memory grows for thousands of
    requests. Two heaps for all cost no speed that could be measured.

    Returns:
        Whether this C library has heard of it.
    """
    mallopt = _libc("mallopt")
    # The call answers 1 where it is obeyed.
    return mallopt is not None and bool(mallopt(M_ARENA_MAX, ARENAS))


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
