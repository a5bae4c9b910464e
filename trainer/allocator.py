"""Keep freed memory in the process instead of returning it to the operating system (glibc only).

By default glibc maps each large block again, and the kernel zeroes its pages, in every training step on a CPU.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory until the process ends; return whether the C library supports it."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Allocate from the heap only, and never (-1) trim it. mallopt returns 1 on success.
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
