"""The arena keeps memory for the next image, up to a limit, and frees it with the graph."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from typing import Any

import onnx
import pytest

from service.segmentation.inference import arena
from service.segmentation.inference.session_pool import REMEMBERED_SHAPES, SessionPool
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
print(json.dumps([again, faults() - begin, min(mapped)]))
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

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs mallinfo2 of the GNU C library")


def output_of(program: str) -> Any:
    command = [sys.executable, "-c", BEGIN + program, str(STARTER)]
    return json.loads(subprocess.check_output(command, text=True, timeout=120))


@glibc
def test_images_of_one_size_reuse_the_same_memory() -> None:
    faults, faults_after_shrink, mapped = output_of(SAME_SIZE)
    assert 50 * faults < faults_after_shrink
    assert mapped >= arena.REGION_BYTES


@glibc
def test_memory_of_many_sizes_does_not_add_up() -> None:
    most, limit, after_shrink = output_of(MANY_SIZES)
    assert arena.REGION_BYTES <= most <= limit
    assert after_shrink < arena.REGION_BYTES


@glibc
def test_dropping_the_engine_frees_its_memory() -> None:
    kept, remaining = output_of(DROPPED)
    assert remaining < arena.REGION_BYTES <= kept


def test_nothing_is_kept_without_mallinfo2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena, "_mallinfo2", lambda: None)
    assert arena.mapped_bytes() > 1000 * arena.KEPT_BYTES


def test_the_smallest_graph_is_a_valid_not() -> None:
    model = onnx.load_model_from_string(arena.smallest_graph())
    onnx.checker.check_model(model)
    (node,) = model.graph.node
    assert (node.op_type, list(node.input), list(node.output)) == ("Not", ["x"], ["y"])


def test_runs_are_counted_for_a_limited_number_of_shapes() -> None:
    sessions = SessionPool(STARTER, threads=1, device="cpu")
    assert [sessions._count_run((1, 2)) for _ in range(4)] == [True, True, False, False]
    assert sessions._count_run((2, 1))
    for number in range(2 * REMEMBERED_SHAPES):
        sessions._count_run((number,))
    assert len(sessions._runs) <= REMEMBERED_SHAPES
