"""Parse graphs and build and run engines with NVIDIA TensorRT or TensorRT for RTX.

Both have the same Python interface. TensorRT needs a GPU even to parse; TensorRT for RTX parses and builds without one,
for every GPU since Ampere.
"""

# N images, H W pixels

import importlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.bundle import BundleError
from exporter.probe import Bytes, Outputs, Predict
from exporter.tensorrt.profile import IMAGE, Profile

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")


class TensorRTUnavailableError(ValueError):
    """TensorRT or the GPU that it needs is missing; the message states the remedy."""


@dataclass(frozen=True, slots=True)
class Library:
    """NVIDIA's Python module and its logged errors."""

    name: str
    module: Any
    errors: list[str]

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.module.__version__}"


def find_library() -> Library:
    """Return the first of MODULES that works here. Raises TensorRTUnavailableError if none does."""
    needs_gpu = ""
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError):  # OSError: its shared libraries are missing
            continue
        library = Library(name.removesuffix("_bindings"), module, [])
        try:
            module.Builder(_logger(library))
        except (TypeError, RuntimeError):  # its C++ code returned a null pointer
            needs_gpu = needs_gpu or library.title
            continue
        return library
    if needs_gpu:
        raise TensorRTUnavailableError(
            f"{needs_gpu} needs a GPU to check a graph and finds none: run `pip install tensorrt-rtx`, which works "
            "without one"
        )
    raise TensorRTUnavailableError(
        "The check needs NVIDIA's TensorRT parser, which is not installed: run `pip install tensorrt-rtx` (needs no "
        "GPU) or `pip install tensorrt`"
    )


def parse_errors(model: bytes, library: Library) -> str:
    """Return the parser's reasons to reject a serialised ONNX model; empty if it accepts the model."""
    _, _, errors = _parse(library.module.Builder(_logger(library)), model, library)
    return errors


def build(graph: Path, file: Path, profile: Profile, library: Library, *, exact: bool = False) -> None:
    """Build the engine `file` from the ONNX file `graph` for the image sizes of `profile`.

    `exact` multiplies fp32 in full; otherwise the GPU may use TF32.

    Raises BundleError if TensorRT rejects the graph or cannot build an engine.
    """
    trt = library.module
    builder = trt.Builder(_logger(library))
    network, _parser, errors = _parse(builder, graph.read_bytes(), library)
    if errors:
        raise BundleError(f"{library.title} rejects the graph: {errors}. Export the bundle again with this version")
    config, shapes = builder.create_builder_config(), profile.shapes
    if exact:
        config.clear_flag(trt.BuilderFlag.TF32)
    optimization = builder.create_optimization_profile()
    optimization.set_shape(IMAGE, shapes["min"], shapes["opt"], shapes["max"])
    config.add_optimization_profile(optimization)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        reason = "; ".join(library.errors[-3:]) or "it gives no reason"
        raise BundleError(f"{library.title} cannot build an engine: {reason}")
    file.write_bytes(bytes(engine))


def load_predictor(file: Path, library: Library) -> Predict:
    """Load an engine on the GPU. Raises BundleError, or TensorRTUnavailableError without a GPU or torch."""
    try:
        import torch  # noqa: PLC0415 - takes seconds to import and is needed only here
    except ImportError as error:
        raise TensorRTUnavailableError(
            "not run: torch, which holds the tensors on the GPU, is not installed"
        ) from error
    if not torch.cuda.is_available():
        raise TensorRTUnavailableError("not run: no GPU")
    runtime = library.module.Runtime(_logger(library))
    engine = runtime.deserialize_cuda_engine(file.read_bytes())
    if engine is None:
        raise BundleError(f"{library.title} does not load {file}: {'; '.join(library.errors[-3:])}")
    context = engine.create_execution_context()
    dtypes = {1: torch.uint8, 2: torch.float16, 4: torch.int32}

    def predict(image_NHW3: Bytes) -> Outputs:
        assert runtime is not None  # noqa: S101 - the engine needs its runtime: this keeps a reference to it
        images = torch.from_numpy(np.ascontiguousarray(image_NHW3)).cuda()
        context.set_input_shape(IMAGE, tuple(images.shape))
        context.set_tensor_address(IMAGE, images.data_ptr())
        outputs = {}
        # TensorRT needs an address for each output.
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        for name in names:
            if name == IMAGE:
                continue
            dtype = dtypes[engine.get_tensor_dtype(name).itemsize]
            outputs[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtype, device="cuda")
            context.set_tensor_address(name, outputs[name].data_ptr())
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # not annotated in torch
        stream.wait_stream(torch.cuda.current_stream())
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return Outputs(**{name: output.cpu().numpy() for name, output in outputs.items()})

    return predict


def _parse(builder: Any, model: bytes, library: Library) -> tuple[Any, Any, str]:
    """Return the network, the parser, which holds its weights until the build, and the errors."""
    # Keeps the graph's types: an option of TensorRT 10, and the only mode of TensorRT 11.
    flag = getattr(library.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = library.module.OnnxParser(network, _logger(library))
    return network, parser, "" if parser.parse(model) else _errors(parser)


def _errors(parser: Any) -> str:
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    counts = Counter((error.node_operator() or "graph", error.desc().splitlines()[0].rstrip(".")) for error in errors)
    clauses = (
        f"{operator}: {reason}" + (f" ({count} times)" if count > 1 else "")
        for (operator, reason), count in counts.items()
    )
    return "; ".join(clauses) or "it gives no reason"


def _logger(library: Library) -> Any:
    trt = library.module

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Collects errors instead of printing them."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR}:
                library.errors.append(message)

    return Logger()
