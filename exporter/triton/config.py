"""config.pbtxt of the two models: how Triton is to run them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from exporter.manifest import ClassEntry, Manifest
from exporter.tensorrt.profile import usual_size
from exporter.triton.pbtxt import Message, Value, Word, entries, to_text
from exporter.triton.signature import Signature, Tensor

Kind = Literal["auto", "cpu", "gpu"]
Backend = Literal["onnxruntime", "python"]

LABELS = "labels.txt"
PLATFORMS: dict[Backend, dict[str, str]] = {
    "onnxruntime": {"platform": "onnxruntime_onnx", "backend": "onnxruntime"},
    "python": {"backend": "python"},
}
LONGEST_QUEUE = 64
"""Requests that wait for a model; one more is told at once that the server is busy, before memory is."""
ENCODED_INSTANCES = 2
"""Processes that decode and encode: one works while the images of the other are in the network."""
MAX_IMAGE_BYTES = 20 * 2**20
MAX_IMAGE_PIXELS = 24_000_000
MAX_NATIVE_PIXELS = 2_100_000
"""Largest image for a graph that runs at the image's own size: its memory grows with the image."""

TENSORRT = 'name: "tensorrt"'
"""The line by which a config.pbtxt that may have been edited says that its graph runs on TensorRT."""

HEAD = """\
# Written by `python -m exporter triton`, and yours to tune: later exports keep it, but those with --rewrite-config.
"""
MARKS = ("# versions: each export writes the lines from here ...", "# ... to here")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the maker of a repository decides; all of it can be changed in config.pbtxt later."""

    kind: Kind = "auto"
    """Where the graph runs. `auto`: on every GPU that Triton sees, on the CPU if there is none."""
    instances: int = 1
    """Sessions of the graph; with `gpu`, on each GPU."""
    max_batch_size: int = 4
    """Most images in one run of the graph; Triton puts only images of one height and width together."""
    backend: Backend = "onnxruntime"
    """`python`: onnxruntime from its wheel, for Tritons without the onnxruntime backend."""
    tensorrt: bool = False
    """Run the graph through onnxruntime's TensorRT provider, in fp16."""
    tensorrt_cache: str = "/tmp/tensorrt-cache"  # noqa: S108 - of the server's container, and a name to be replaced
    """Folder, on the server, of the engines that TensorRT builds."""
    max_pixels: int = 0
    """Largest encoded image, width times height; 0: what Maskloop's service takes."""

    def __post_init__(self) -> None:
        for name in ("instances", "max_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: give 1 or more")
        if self.max_pixels < 0:
            raise ValueError(f"--max-pixels {self.max_pixels}: give 1 or more, or 0 for what the service takes")
        if self.tensorrt and (self.kind == "cpu" or self.backend == "python"):
            raise ValueError(
                "--tensorrt needs a GPU and Triton's onnxruntime backend: leave --kind cpu, --backend python out"
            )


def tensor_config(
    name: str, signature: Signature, manifest: Manifest, versions: Mapping[int, str], options: Options
) -> str:
    """config.pbtxt of the tensor model.

    Args:
        name: The model's, which is its folder's.
        signature: The graph's.
        manifest: The bundle's.
        versions: What each version folder holds, by number.
        options: The maker's.
    """
    message: dict[str, Value] = {
        "name": name,
        **PLATFORMS[options.backend],
        "max_batch_size": options.max_batch_size,
        "input": [_tensor(tensor) for tensor in signature.inputs],
        "output": [
            {**_tensor(tensor), **({"label_filename": LABELS} if tensor.name == "mask" else {})}
            for tensor in signature.outputs
        ],
        "instance_group": [{"kind": Word(f"KIND_{options.kind.upper()}"), "count": options.instances}],
        "dynamic_batching": _batching(),
        "model_warmup": [_warm_up(signature, manifest)],
        "parameters": entries({"classes": _text(_classes(manifest.classes)), "bundle_name": _text(manifest.name)}),
    }
    if options.tensorrt:
        message["optimization"] = _tensorrt(options.tensorrt_cache)
    return HEAD + to_text(message) + _versions(versions)


def encoded_config(name: str, tensor_model: str, manifest: Manifest, options: Options) -> str:
    """config.pbtxt of the model that takes encoded images and asks `tensor_model`."""
    largest = MAX_IMAGE_PIXELS if manifest.inference.long_side else MAX_NATIVE_PIXELS
    parameters = {
        "tensor_model": tensor_model,
        "max_image_bytes": str(MAX_IMAGE_BYTES),
        "max_image_pixels": str(options.max_pixels or largest),
        "classes": _classes(manifest.classes),
    }
    # No warm-up: at start, the tensor model that it would ask may not be there yet, and a failed one keeps a model out.
    message: Message = {
        "name": name,
        "backend": "python",
        "max_batch_size": options.max_batch_size,
        "input": [_tensor(Tensor("image_bytes", "TYPE_STRING", (1,)))],
        "output": [_tensor(Tensor("mask_png", "TYPE_STRING", (1,)))],
        "instance_group": [{"kind": Word("KIND_CPU"), "count": ENCODED_INSTANCES}],
        "dynamic_batching": _batching(),
        "parameters": entries({key: _text(value) for key, value in parameters.items()}),
    }
    return HEAD + to_text(message)


def with_versions(text: str, versions: Mapping[int, str]) -> str:
    """A tensor model's config.pbtxt with its list of versions brought up to date, where the marks are still there."""
    begin, end = map(re.escape, MARKS)
    return re.sub(f"{begin}\n.*?{end}\n", lambda _: _versions(versions), text, count=1, flags=re.DOTALL)


def labels(classes: tuple[ClassEntry, ...]) -> str:
    """labels.txt: one class a line, in the order of their ids."""
    return "".join(" ".join(entry.name.split()) + "\n" for entry in classes)


def _versions(versions: Mapping[int, str]) -> str:
    begin, end = MARKS
    pairs = entries({f"version_{number}": _text(label) for number, label in sorted(versions.items())})
    return f"{begin}\n{to_text({'parameters': pairs})}{end}\n"


def _tensor(tensor: Tensor) -> Message:
    return {"name": tensor.name, "data_type": Word(tensor.data_type), "dims": tensor.dims}


def _batching() -> Message:
    # No delay: requests that wait anyway are put together, and none waits for company.
    return {"default_queue_policy": {"max_queue_size": LONGEST_QUEUE}}


def _warm_up(signature: Signature, manifest: Manifest) -> Message:
    """One image before the model counts as ready, so that no client waits for memory or for an engine."""
    (image,) = signature.inputs
    size = usual_size(manifest.inference.long_side)
    noise: Message = {"data_type": Word(image.data_type), "dims": (*size, 3), "random_data": True}
    return {"name": "one image", "batch_size": 1, "inputs": entries({image.name: noise})}


def _tensorrt(cache: str) -> Message:
    parameters = {
        "precision_mode": "FP16",
        # The mean and variance of layer norms overflow in fp16.
        "trt_layer_norm_fp32_fallback": "1",
        # An engine takes minutes to build, and an image of a size beyond those seen before asks for another one.
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
    }
    accelerator: Message = {"name": "tensorrt", "parameters": entries(parameters)}
    return {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}


def _text(value: str) -> Message:
    """A value of a model's parameters."""
    return {"string_value": value}


def _classes(classes: tuple[ClassEntry, ...]) -> str:
    return json.dumps([{"id": entry.id, "name": entry.name, "color": entry.color} for entry in classes])
