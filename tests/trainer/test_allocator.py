"""The C library's memory: what a step frees, the next one has without asking the system."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from trainer.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [torch.zeros(2**23) for _ in range(4)]
    del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print([faults() for _ in range(8)][-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_pages_are_asked_for_once() -> None:
    last = {word: int(subprocess.check_output([sys.executable, "-c", FAULTS, word])) for word in ("keep", "not")}
    assert last["keep"] == 0
    assert last["not"] > 2**12
