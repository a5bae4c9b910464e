"""A Python interpreter whose exporter makes a fault: it stands for a graph that fails, or is slow, in traffic only.

    python -m tests.scenarios.faulty_python FAULT ARGUMENT...

runs `python ARGUMENT...`; after `-m exporter export` it changes the fp32 graph of the bundle. Neither the probe nor the
validation images show it.

- `large`: the graph raises an error for images that are wider than 1000 pixels.
- `slow`: the graph computes matrix products more; its masks stay the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporter.bundle import sha256_of

WIDTH_LIMIT = 1000
"""Pixels."""
PRODUCTS, SIDE = 40, 512
"""Matrix products of the slow graph, each of 0.27 GFLOP."""


def write_interpreter(file: Path, fault: str) -> None:
    """Write a program that the setting MASKLOOP_TRAINER_PYTHON can name."""
    root = Path(__file__).parents[2]
    lines = ["#!/bin/sh", f"export PYTHONPATH='{root}'", f"exec '{sys.executable}' -m {__spec__.name} {fault} \"$@\""]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    file.chmod(0o755)


def main(fault: str, *arguments: str) -> int:
    """Run Python; add the fault to what it exports."""
    if arguments[:3] != ("-m", "exporter", "export"):
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - a list, no shell
    code = subprocess.run([sys.executable, *arguments], check=False).returncode
    if code == 0:
        add_fault(Path(arguments[arguments.index("--out") + 1]), FAULTS[fault])
    return code


def add_fault(bundle: Path, change: Callable[[onnx.GraphProto], None]) -> None:
    """Change the fp32 graph of a bundle, and its checksum."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    (artifact,) = (each for each in manifest["artifacts"] if each["precision"] == "fp32")
    file = bundle / artifact["file"]
    model = onnx.load(file)
    change(model.graph)
    onnx.save(model, file)
    artifact["sha256"], artifact["bytes"] = sha256_of(file), file.stat().st_size
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def fail_on_large_images(graph: onnx.GraphProto) -> None:
    """Read the element [width > 1000] of a list of one: an error if it is 1. Its value 0 is added to the mask."""
    nodes = [
        helper.make_node("Shape", ["image"], ["fault_shape"]),
        helper.make_node("Gather", ["fault_shape", "fault_two"], ["fault_width"]),
        helper.make_node("Greater", ["fault_width", "fault_limit"], ["fault_large"]),
        helper.make_node("Cast", ["fault_large"], ["fault_index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["fault_list", "fault_index"], ["fault_zero"]),
    ]
    constants = {
        "fault_two": np.array(2),
        "fault_limit": np.array(WIDTH_LIMIT),
        "fault_list": np.zeros(1, np.uint8),
    }
    _add_to_mask(graph, nodes, constants)


def be_slow(graph: onnx.GraphProto) -> None:
    """Multiply a matrix, which depends on the image, many times by another one, and add 0 times its sum to the mask."""
    nodes = [
        helper.make_node("Cast", ["image"], ["fault_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["fault_float"], ["fault_mean"], keepdims=0),
        helper.make_node("Expand", ["fault_mean", "fault_size"], ["fault_0"]),
        *(helper.make_node("MatMul", [f"fault_{k}", "fault_matrix"], [f"fault_{k + 1}"]) for k in range(PRODUCTS)),
        helper.make_node("ReduceMean", [f"fault_{PRODUCTS}"], ["fault_sum"], keepdims=0),
        helper.make_node("Mul", ["fault_sum", "fault_none"], ["fault_product"]),
        helper.make_node("Cast", ["fault_product"], ["fault_zero"], to=TensorProto.UINT8),
    ]
    constants = {
        "fault_size": np.array([SIDE, SIDE]),
        # Each product keeps the mean.
        "fault_matrix": np.full((SIDE, SIDE), 1 / SIDE, np.float32),
        "fault_none": np.array(0, np.float32),
    }
    _add_to_mask(graph, nodes, constants)


def _add_to_mask(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
    """Add `fault_zero`, a number, to the output `mask`."""
    for node in graph.node:
        for number, name in enumerate(node.output):
            if name == "mask":
                node.output[number] = "mask_before_fault"
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend([*nodes, helper.make_node("Add", ["mask_before_fault", "fault_zero"], ["mask"])])


FAULTS = {"large": fail_on_large_images, "slow": be_slow}

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
