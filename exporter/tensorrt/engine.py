"""An engine, where NVIDIA's library is there to build one; and what it gives, where there is a GPU to run it.

Both libraries will do: TensorRT, which needs a GPU to build on, and TensorRT for RTX, which builds without one for
every GPU since Ampere. Their Python interfaces are the same here. The exporter works without either.
"""

# N images, H W pixels

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.bundle import BundleError
from exporter.probe import Bytes, Ids, Predict
from exporter.tensorrt.profile import IMAGE, Profile

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
INSTALL = "pip install tensorrt, or tensorrt-rtx, which needs no GPU"


class NoEngineError(Exception):
    """Nothing to build an engine with, or nothing to run it on; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Library:
    """NVIDIA's module and a logger that keeps its words."""

    name: str
    module: Any
    said: list[str]

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.module.__version__}"


def library() -> Library:
    """The first of MODULES that is installed. Raises NoEngineError."""
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError):  # the latter: its shared libraries are not there
            continue
        return Library(name.removesuffix("_bindings"), module, [])
    raise NoEngineError(f"no TensorRT here ({INSTALL})")


def build(graph: Path, file: Path, profile: Profile, found: Library, *, exact: bool = False) -> None:
    """Write the engine of a graph.

    Args:
        graph: of standard operators.
        file: where to write.
        profile: the sizes that it is to take.
        found: the library.
        exact: fp32 is not to be multiplied as TF32, whose fractions have ten bits.

    Raises:
        NoEngineError: The library needs a GPU, and there is none.
        BundleError: It refuses the graph.
    """
    trt = found.module
    logger = _logger(found)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # what its C++ gives for a null pointer
        raise NoEngineError(f"{found.title} needs a GPU to build an engine, and finds none") from error
    network = builder.create_network(_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise BundleError(f"{found.title} refuses the graph: {_errors(parser)}")
    config, shapes = builder.create_builder_config(), profile.shapes
    if exact:
        config.clear_flag(trt.BuilderFlag.TF32)
    sizes = builder.create_optimization_profile()
    sizes.set_shape(IMAGE, shapes["min"], shapes["opt"], shapes["max"])
    config.add_optimization_profile(sizes)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BundleError(f"{found.title} builds no engine: {'; '.join(found.said[-3:]) or 'it does not say why'}")
    file.write_bytes(bytes(engine))


def predictor(file: Path, found: Library) -> Predict:
    """An engine behind the predictor's face.

    Raises:
        NoEngineError: No GPU, or no torch that sees it.
    """
    try:
        import torch  # noqa: PLC0415 - takes seconds, and is of use only here
    except ImportError as error:
        raise NoEngineError("not run: torch, which holds the tensors on the GPU, is not installed") from error
    if not torch.cuda.is_available():
        raise NoEngineError("not run: no GPU")
    runtime = found.module.Runtime(_logger(found))
    engine = runtime.deserialize_cuda_engine(file.read_bytes())
    if engine is None:
        raise BundleError(f"{found.title} does not load {file}: {'; '.join(found.said[-3:])}")
    return _runner(engine, torch, keep=runtime)


def _runner(engine: Any, torch: Any, *, keep: Any) -> Callable[[Bytes], tuple[Ids, Bytes]]:
    context = engine.create_execution_context()

    def predict(image_NHW3: Bytes) -> tuple[Ids, Bytes]:
        assert keep is not None  # noqa: S101 - an engine does not outlive its runtime
        images = torch.from_numpy(np.ascontiguousarray(image_NHW3)).cuda()
        context.set_input_shape(IMAGE, tuple(images.shape))
        context.set_tensor_address(IMAGE, images.data_ptr())
        outputs = {}
        for name in ("mask", "confidence"):
            kind = torch.uint8 if engine.get_tensor_dtype(name).itemsize == 1 else torch.int32
            outputs[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=kind, device="cuda")
            context.set_tensor_address(name, outputs[name].data_ptr())
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return outputs["mask"].cpu().numpy(), outputs["confidence"].cpu().numpy()

    return predict


def _logger(found: Library) -> Any:
    trt = found.module

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps what is wrong; TensorRT writes it to the terminal otherwise."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR}:
                found.said.append(message)

    return Logger()


def _flags(trt: Any) -> int:
    """Types as the graph has them: the only way from TensorRT 11 on, and a wish in 10."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _errors(parser: Any) -> str:
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    return "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc().splitlines()[0]}" for error in errors)
