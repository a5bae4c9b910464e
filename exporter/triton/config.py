"""Write config.pbtxt of the tensor model and of the model for encoded images."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from exporter.manifest import ClassEntry, Manifest
from exporter.tensorrt.profile import usual_size
from exporter.triton.pbtxt import EnumValue, Message, Value, map_entries, to_text
from exporter.triton.signature import Signature, Tensor

Kind = Literal["auto", "cpu", "gpu"]
Backend = Literal["onnxruntime", "python"]

LABELS = "labels.txt"
PLATFORMS: dict[Backend, dict[str, str]] = {
    "onnxruntime": {"platform": "onnxruntime_onnx", "backend": "onnxruntime"},
    "python": {"backend": "python"},
}
MAX_QUEUE_SIZE = 64
"""Waiting requests per model; Triton rejects further ones at once, before the server runs out of memory."""
ENCODED_INSTANCES = 2
"""Processes that decode and encode: one works while the network runs the images of the other."""
MAX_IMAGE_BYTES = 20 * 2**20
MAX_IMAGE_PIXELS = 24_000_000
MAX_NATIVE_PIXELS = 2_100_000
"""Largest image for a graph that runs at the image's native size: its memory grows with the image."""

TENSORRT = 'name: "tensorrt"'
"""Text in config.pbtxt that shows that the graph runs on TensorRT, also after edits of the file."""

HEADER = """\
# Written by `python -m exporter triton`. Edit it freely: later exports keep it, except with --rewrite-config.
"""
MARKERS = ("# versions: each export writes the lines from here ...", "# ... to here")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Settings of config.pbtxt; all of them can be edited in the file later."""

    kind: Kind = "auto"
    """Device of the graph. `auto`: every GPU that Triton sees, or the CPU if there is none."""
    instances: int = 1
    """Sessions of the graph; with `gpu`, per GPU."""
    max_batch_size: int = 4
    """Most images in one run of the graph; Triton batches only images of equal height and width."""
    backend: Backend = "onnxruntime"
    """Triton's backend. `python`: onnxruntime from its wheel, for Triton builds without the onnxruntime backend."""
    tensorrt: bool = False
    """Run the graph through onnxruntime's TensorRT provider, in fp16."""
    tensorrt_cache: str = "/tmp/tensorrt-cache"  # noqa: S108 - in the server's container; a default to replace
    """Folder on the server for the engines that TensorRT builds."""
    max_pixels: int = 0
    """Largest encoded image, width times height; 0: the limit of Maskloop's service."""

    def __post_init__(self) -> None:
        for name in ("instances", "max_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give 1 or more")
        if self.max_pixels < 0:
            raise ValueError(f"--max-pixels is {self.max_pixels}; give 1 or more, or 0 for the service's limit")
        if self.tensorrt and (self.kind == "cpu" or self.backend == "python"):
            raise ValueError(
                "--tensorrt needs a GPU and Triton's onnxruntime backend: remove --kind cpu and --backend python"
            )


def tensor_config(
    name: str, signature: Signature, manifest: Manifest, versions: Mapping[int, str], options: Options
) -> str:
    """Return config.pbtxt of the tensor model.

    Args:
        name: Name of the model and of its folder.
        signature: Of the graph.
        manifest: Of the bundle.
        versions: Label of each version folder, by number.
        options: The other settings.
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
        "instance_group": [{"kind": EnumValue(f"KIND_{options.kind.upper()}"), "count": options.instances}],
        "dynamic_batching": _batching(),
        "model_warmup": [_warm_up(signature, manifest)],
        "parameters": map_entries({"classes": _text(_classes(manifest.classes)), "bundle_name": _text(manifest.name)}),
    }
    if options.tensorrt:
        message["optimization"] = _tensorrt(options.tensorrt_cache)
    return HEADER + to_text(message) + _versions(versions)


def encoded_config(name: str, tensor_model: str, manifest: Manifest, options: Options) -> str:
    """Return config.pbtxt of the model that takes encoded images and calls `tensor_model`."""
    max_pixels = MAX_IMAGE_PIXELS if manifest.inference.long_side else MAX_NATIVE_PIXELS
    parameters = {
        "tensor_model": tensor_model,
        "max_image_bytes": str(MAX_IMAGE_BYTES),
        "max_image_pixels": str(options.max_pixels or max_pixels),
        "classes": _classes(manifest.classes),
    }
    # No warm-up: the tensor model may not be loaded yet, and Triton does not load a model whose warm-up fails.
    message: Message = {
        "name": name,
        "backend": "python",
        "max_batch_size": options.max_batch_size,
        "input": [_tensor(Tensor("image_bytes", "TYPE_STRING", (1,)))],
        "output": [_tensor(Tensor("mask_png", "TYPE_STRING", (1,)))],
        "instance_group": [{"kind": EnumValue("KIND_CPU"), "count": ENCODED_INSTANCES}],
        "dynamic_batching": _batching(),
        "parameters": map_entries({key: _text(value) for key, value in parameters.items()}),
    }
    return HEADER + to_text(message)


def update_versions(text: str, versions: Mapping[int, str]) -> str:
    """Replace the list of versions between MARKERS in a config.pbtxt; without markers, return the text unchanged."""
    begin, end = map(re.escape, MARKERS)
    return re.sub(f"{begin}\n.*?{end}\n", lambda _: _versions(versions), text, count=1, flags=re.DOTALL)


def labels_text(classes: tuple[ClassEntry, ...]) -> str:
    """Return labels.txt: one class per line, in the order of the ids."""
    return "".join(" ".join(entry.name.split()) + "\n" for entry in classes)


def _versions(versions: Mapping[int, str]) -> str:
    begin, end = MARKERS
    pairs = map_entries({f"version_{number}": _text(label) for number, label in sorted(versions.items())})
    return f"{begin}\n{to_text({'parameters': pairs})}{end}\n"


def _tensor(tensor: Tensor) -> Message:
    return {"name": tensor.name, "data_type": EnumValue(tensor.data_type), "dims": tensor.dims}


def _batching() -> Message:
    # No delay: Triton batches the requests that are waiting and does not wait for more.
    return {"default_queue_policy": {"max_queue_size": MAX_QUEUE_SIZE}}


def _warm_up(signature: Signature, manifest: Manifest) -> Message:
    """Run one image before the model is ready, so that no client waits for allocations or for an engine."""
    (image,) = signature.inputs
    size = usual_size(manifest.inference.long_side)
    noise: Message = {"data_type": EnumValue(image.data_type), "dims": (*size, 3), "random_data": True}
    return {"name": "one image", "batch_size": 1, "inputs": map_entries({image.name: noise})}


def _tensorrt(cache: str) -> Message:
    parameters = {
        "precision_mode": "FP16",
        # The mean and variance of layer norms overflow in fp16.
        "trt_layer_norm_fp32_fallback": "1",
        # An engine takes minutes to build, and an image outside the sizes seen so far needs another one.
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
    }
    accelerator: Message = {"name": "tensorrt", "parameters": map_entries(parameters)}
    return {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}


def _text(value: str) -> Message:
    """Return a value of a model's `parameters`."""
    return {"string_value": value}


def _classes(classes: tuple[ClassEntry, ...]) -> str:
    return json.dumps([{"id": entry.id, "name": entry.name, "color": entry.color} for entry in classes])
