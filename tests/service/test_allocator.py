"""Memory allocation of glibc, measured in processes of their own."""

from __future__ import annotations

import platform
import re
import subprocess
import sys

import pytest

ARENAS = """
import ctypes, sys, threading
from service.allocator import configure_malloc

if sys.argv[1] == "few":
    assert configure_malloc()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(8)

def use():
    together.wait()
    libc.malloc(10_000)
    together.wait()

threads = [threading.Thread(target=use) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_stats()
"""

KEPT = """
import ctypes, resource, sys
from service.allocator import configure_malloc

if sys.argv[1] == "kept":
    assert configure_malloc()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def use(size, count=2):
    blocks = [libc.malloc(size) for _ in range(count)]
    [ctypes.memset(block, 1, size) for block in blocks]
    [libc.free(block) for block in blocks]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

use(8_000_000)
begin = faults()
for _ in range(10):
    use(8_000_000)
of_small = faults() - begin
begin = resident()
use(200_000_000, count=1)
print(of_small, resident() - begin)
"""

TRIM = """
from service.allocator import trim_heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

# Small enough for the heap. Every eighth stays, so that the heap's end cannot be trimmed.
pieces = [bytearray(20_000) for _ in range(5_000)]
before = resident()
del pieces[1::2], pieces[1::2], pieces[1::2]
after = resident()
assert trim_heap()
print(before - after, after - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is configured")
def test_trim_heap_returns_free_memory() -> None:
    told = subprocess.check_output([sys.executable, "-c", TRIM], text=True, timeout=60)
    by_itself, when_told = map(int, told.split())
    assert when_told > 40_000_000 > by_itself


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is configured")
def test_freed_memory_is_kept_and_large_blocks_are_returned() -> None:
    found = {}
    for word in ("kept", "by default"):
        told = subprocess.check_output([sys.executable, "-c", KEPT, word], text=True, timeout=60)
        found[word] = list(map(int, told.split()))
    faults, kept_bytes = found["kept"]
    assert 100 * faults < found["by default"][0]
    assert kept_bytes < 1_000_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is configured")
def test_threads_share_two_arenas() -> None:
    found = {}
    for word in ("few", "many"):
        told = subprocess.run(
            [sys.executable, "-c", ARENAS, word], capture_output=True, text=True, check=True, timeout=60
        )
        found[word] = len(re.findall(r"^Arena \d+:", told.stderr, re.MULTILINE))
    assert found["few"] == 2
    assert found["many"] > 2
