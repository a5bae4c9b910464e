"""Freed memory stays with the process: what the C library hands back to the system, a step asks for again.

A training step on a CPU frees and takes gigabytes of activations in large pieces. By default the GNU C library maps
each of them anew, and the system fills every page with zeros before the step may write to it. Other C libraries are
left as they are.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""

NEVER = -1
"""The threshold above which the heap's free end is handed back, by the manual's own word for none."""


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed, for the rest of this process; whether this C library can.

    The process's memory stays at its peak until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # No piece is mapped by itself, and the heap's end is not cut. The call answers 1 where it is obeyed.
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
