"""Write config.pbtxt, in protocol buffers' text format, of the tensor model and of the model for encoded images.

protobuf's own writer needs Triton's schema, which none of the exporter's libraries contains.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from exporter.bundle import BundleError
from exporter.manifest import ClassEntry, Manifest
from exporter.tensorrt.profile import usual_size

Kind = Literal["auto", "cpu", "gpu"]
Backend = Literal["onnxruntime", "python"]

LABELS = "labels.txt"
DATA_TYPES: dict[int, str] = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.UINT16: "TYPE_UINT16"}
EMBEDDING_TYPES: dict[int, str] = {onnx.TensorProto.FLOAT16: "TYPE_FP16"}
PLATFORMS: dict[Backend, str] = {
    "onnxruntime": 'platform: "onnxruntime_onnx"\nbackend: "onnxruntime"',
    "python": 'backend: "python"',
}
ENCODED_INSTANCES = 2
"""Processes that decode and encode: one works while the network runs the other's images."""
MAX_IMAGE_BYTES = 20 * 2**20
MAX_IMAGE_PIXELS = 24_000_000
MAX_NATIVE_PIXELS = 2_100_000
"""For graphs at native size, whose memory grows with the image."""

TENSORRT = 'name: "tensorrt"'
"""Text in config.pbtxt if the graph runs on TensorRT."""

HEADER = (
    "# Written by `python -m exporter triton`. Edit it freely: later exports keep it, except with --rewrite-config."
)
MARKERS = ("# versions: each export writes the lines from here ...", "# ... to here")
BATCHING = """\
# Batches waiting requests without a delay; rejects requests above the limit, before memory runs out.
dynamic_batching { default_queue_policy { max_queue_size: 64 } }"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Settings of config.pbtxt, which can be edited in the file later."""

    kind: Kind = "auto"
    """Device of the graph. `auto`: every GPU, or the CPU if there is none."""
    instances: int = 1
    """Sessions of the graph; with `gpu`, per GPU."""
    max_batch_size: int = 4
    """Most images in one run; Triton batches only images of equal size."""
    backend: Backend = "onnxruntime"
    """`python`: onnxruntime from its wheel, for Triton builds without the onnxruntime backend."""
    tensorrt: bool = False
    """Use onnxruntime's TensorRT provider, in fp16."""
    tensorrt_cache: str = "/tmp/tensorrt-cache"  # noqa: S108 - in the server's container; a default to replace
    """Folder on the server for engines."""
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


def tensor_entries(graph: Path) -> str:
    """Return the entries `input` and `output` of config.pbtxt for an ONNX file.

    Raises BundleError if a tensor is not uint8 or uint16 (the embedding: float16), or its first dimension is not
    dynamic.
    """
    model = onnx.load(graph, load_external_data=False).graph
    inputs = [_tensor_entry("input", value, graph) for value in model.input]
    return "\n".join([*inputs, *(_tensor_entry("output", value, graph) for value in model.output)])


def tensor_config(name: str, tensors: str, manifest: Manifest, versions: Mapping[int, str], options: Options) -> str:
    """Return config.pbtxt of the tensor model, with `tensors` of `tensor_entries` and the label of each version."""
    height, width = usual_size(manifest.inference.long_side)
    return f"""\
{HEADER}
name: {_quoted(name)}
{PLATFORMS[options.backend]}
max_batch_size: {options.max_batch_size}
{tensors}
instance_group {{ kind: KIND_{options.kind.upper()} count: {options.instances} }}
{BATCHING}
# Allocates memory and builds TensorRT's engine before the first request.
model_warmup {{
  name: "one image"
  batch_size: 1
  inputs {{ key: "image" value {{ data_type: TYPE_UINT8 dims: [{height}, {width}, 3] random_data: true }} }}
}}
{_parameters({"classes": _classes(manifest.classes), "bundle_name": manifest.name})}\
{_tensorrt(options.tensorrt_cache) if options.tensorrt else ""}\
{_versions(versions)}"""


def encoded_config(name: str, tensor_model: str, manifest: Manifest, options: Options) -> str:
    """Return config.pbtxt of the model for encoded images, which calls `tensor_model`."""
    max_pixels = MAX_IMAGE_PIXELS if manifest.inference.long_side else MAX_NATIVE_PIXELS
    parameters = {
        "tensor_model": tensor_model,
        "max_image_bytes": str(MAX_IMAGE_BYTES),
        "max_image_pixels": str(options.max_pixels or max_pixels),
        "classes": _classes(manifest.classes),
    }
    if manifest.value_range:
        parameters["value_range"] = json.dumps(manifest.value_range)
    # No warm-up: it fails if the tensor model is not loaded yet, and then Triton does not load this one.
    return f"""\
{HEADER}
name: {_quoted(name)}
{PLATFORMS["python"]}
max_batch_size: {options.max_batch_size}
input {{ name: "image_bytes" data_type: TYPE_STRING dims: [1] }}
output {{ name: "mask_png" data_type: TYPE_STRING dims: [1] }}
instance_group {{ kind: KIND_CPU count: {ENCODED_INSTANCES} }}
{BATCHING}
{_parameters(parameters)}"""


def update_versions(text: str, versions: Mapping[int, str]) -> str:
    """Replace the list of versions between MARKERS; without markers, return the text unchanged."""
    begin, end = map(re.escape, MARKERS)
    return re.sub(f"{begin}\n.*?{end}\n", lambda _: _versions(versions), text, count=1, flags=re.DOTALL)


def labels_text(classes: tuple[ClassEntry, ...]) -> str:
    """Return labels.txt: one class per line, in the order of the ids."""
    return "".join(" ".join(entry.name.split()) + "\n" for entry in classes)


def _tensor_entry(field: str, value: onnx.ValueInfoProto, graph: Path) -> str:
    tensor = value.type.tensor_type
    dims = [-1 if dim.dim_param else dim.dim_value for dim in tensor.shape.dim]
    types = EMBEDDING_TYPES if value.name == "embedding" else DATA_TYPES
    if tensor.elem_type not in types or dims[:1] != [-1]:
        expected = "float16" if types is EMBEDDING_TYPES else "uint8 or uint16"
        raise BundleError(f"{graph}: {value.name} must be {expected} with a dynamic batch; export the bundle again")
    labels = f' label_filename: "{LABELS}"' if value.name == "mask" else ""
    return f'{field} {{ name: "{value.name}" data_type: {types[tensor.elem_type]} dims: {dims[1:]}{labels} }}'


def _versions(versions: Mapping[int, str]) -> str:
    begin, end = MARKERS
    return f"{begin}\n{_parameters({f'version_{number}': versions[number] for number in sorted(versions)})}{end}\n"


def _tensorrt(cache: str) -> str:
    return f"""\
optimization {{ execution_accelerators {{ gpu_execution_accelerator {{
  name: "tensorrt"
  parameters {{ key: "precision_mode" value: "FP16" }}
  # The mean and variance of layer norms overflow in fp16.
  parameters {{ key: "trt_layer_norm_fp32_fallback" value: "1" }}
  # An engine takes minutes to build, and an image outside the sizes seen so far needs another one.
  parameters {{ key: "trt_engine_cache_enable" value: "1" }}
  parameters {{ key: "trt_engine_cache_path" value: {_quoted(cache)} }}
  parameters {{ key: "trt_timing_cache_enable" value: "1" }}
  parameters {{ key: "trt_timing_cache_path" value: {_quoted(cache)} }}
}} }} }}
"""


def _parameters(values: Mapping[str, str]) -> str:
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: {_quoted(value)} }} }}\n' for key, value in values.items()
    )


def _quoted(text: str) -> str:
    """Quote a string, with reserved and control characters as octal escapes."""
    return '"' + "".join(f"\\{ord(char):03o}" if char in '"\\' or ord(char) < 32 else char for char in text) + '"'


def _classes(classes: tuple[ClassEntry, ...]) -> str:
    return json.dumps([{"id": entry.id, "name": entry.name, "color": entry.color} for entry in classes])
