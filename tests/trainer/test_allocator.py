"""keep_freed_memory: freed memory is reused without new page faults."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from trainer.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [b"x" * 2**25 for _ in range(4)]
    del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print([faults() for _ in range(8)][-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is configured")
def test_freed_memory_is_reused_without_page_faults() -> None:
    last = {word: int(subprocess.check_output([sys.executable, "-c", FAULTS, word])) for word in ("keep", "not")}
    assert last["keep"] == 0
    assert last["not"] > 2**12
