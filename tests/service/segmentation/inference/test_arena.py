"""The memory of inferences: kept for the next image of the size, and no more of it than is allowed."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from typing import Any

import onnx
import pytest

from service.segmentation.inference import arena
from service.segmentation.inference.session_pool import REMEMBERED, SessionPool
from service.settings import PACKAGE

STARTER = PACKAGE / "starter" / "model.onnx"

BEGIN = """
import json, resource, sys
import numpy as np
from service.allocator import configure_malloc
configure_malloc()
from service.segmentation.inference.arena import KEPT_BYTES, mapped_bytes, shared_arena
from service.segmentation.inference.engine import Engine

engine = Engine(sys.argv[1], threads=1, device="cpu")

def run(height, width):
    engine.run(np.zeros((height, width, 3), np.uint8))
    return mapped_bytes()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
"""

SAME_SIZE = """
for _ in range(3):
    run(480, 640)
begin = faults()
mapped = [run(480, 640) for _ in range(5)]
again = (faults() - begin) / 5
shared_arena().shrink()
begin = faults()
run(480, 640)
print(json.dumps([again, faults() - begin, min(mapped), mapped_bytes()]))
"""

MANY_SIZES = """
sizes = [(height, height + 200) for height in range(300, 1000, 50)]
most = max(run(*size) for _ in range(3) for size in sizes)
shared_arena().shrink()
print(json.dumps([most, KEPT_BYTES, mapped_bytes()]))
"""

DROPPED = """
for _ in range(3):
    kept = run(480, 640)
del engine
print(json.dumps([kept, mapped_bytes()]))
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library does not tell what is mapped")


def told_by(program: str) -> Any:
    words = [sys.executable, "-c", BEGIN + program, str(STARTER)]
    return json.loads(subprocess.check_output(words, text=True, timeout=120))


@glibc
def test_images_of_one_size_compute_in_the_same_memory() -> None:
    again, anew, mapped, _ = told_by(SAME_SIZE)
    assert 50 * again < anew
    assert mapped >= arena.REGION_BYTES


@glibc
def test_sizes_that_come_again_and_again_do_not_add_up() -> None:
    most, kept, at_rest = told_by(MANY_SIZES)
    assert arena.REGION_BYTES <= most <= kept
    assert at_rest < arena.REGION_BYTES


@glibc
def test_who_drops_a_graph_drops_its_memory() -> None:
    kept, left = told_by(DROPPED)
    assert left < arena.REGION_BYTES <= kept


def test_where_nothing_is_told_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena, "_mallinfo", lambda: None)
    assert arena.mapped_bytes() > 1000 * arena.KEPT_BYTES


def test_the_least_graph_is_what_it_says() -> None:
    model = onnx.load_model_from_string(arena.NOT)
    onnx.checker.check_model(model)
    (node,) = model.graph.node
    assert (node.op_type, list(node.input), list(node.output)) == ("Not", ["x"], ["y"])


def test_sizes_are_remembered_up_to_a_number() -> None:
    sessions = SessionPool(STARTER, threads=1, device="cpu")
    assert [sessions._early((1, 2)) for _ in range(4)] == [True, True, False, False]
    assert sessions._early((2, 1))
    for number in range(2 * REMEMBERED):
        sessions._early((number,))
    assert len(sessions._seen) <= REMEMBERED
