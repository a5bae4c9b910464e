"""One graph in onnxruntime: an image in, a mask and a confidence out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import structlog

from service.errors import BundleInvalid, MaskloopError, OutOfMemory, Unavailable, names_only
from service.segmentation.budget import Budget

log = structlog.stdlib.get_logger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Mask = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
INPUTS = {"image": {"tensor(uint8)"}}
# How onnxruntime says that the machine, and not the graph, is at fault; it has no types of its own for that.
NO_MEMORY = re.compile(r"bad_alloc|failed to allocate|out of memory|ALLOC_FAILED", re.IGNORECASE)
NO_CUDA = re.compile(r"\b(CUDA|CUDNN|CUBLAS)[ _](failure|error|status)", re.IGNORECASE)
OUTPUTS = {"mask": {"tensor(uint8)", "tensor(uint16)"}, "confidence": {"tensor(uint8)"}}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the graph said about one image."""

    mask_HW: Mask
    """Class ids, uint8 or (above 256 classes) uint16, of the image's size."""
    confidence_HW: npt.NDArray[np.uint8]
    """How sure it is of each pixel: 255 = 1.0."""


class Engine:
    """A loaded graph. `run` may be called from several threads at one time; the memory goes with the last reference."""

    def __init__(self, graph: Path, *, threads: int, device: Device = "auto", budget: Budget | None = None) -> None:
        """Load the graph and look whether it is one of ours.

        Args:
            graph: model.onnx of a bundle.
            threads: Threads inside one inference.
            device: "auto" takes CUDA where it works, "cuda" refuses to run without.
            budget: What one inference may cost. None: anything.

        Raises:
            BundleInvalid: Not a graph, or not with our inputs and outputs.
            Unavailable: CUDA was demanded and does not work, or there is no memory.
        """
        self._budget = budget
        self._session = _open_session(graph, threads, device)
        self.provider: str = self._session.get_providers()[0]
        if device == "cuda" and self.provider != CUDA:
            raise Unavailable(
                "CUDA was asked for and onnxruntime fell back to the CPU: install the `gpu` extra and its driver, or "
                "set MASKLOOP_DEVICE=auto."
            )
        _check_face(self._session)

    def run(self, image_HW3: npt.NDArray[np.uint8]) -> Prediction:
        """Segment one image.

        Args:
            image_HW3: uint8 [H, W, 3], RGB, 0..255.

        Raises:
            ImageTooLarge: It would cost more than the budget.
            OutOfMemory: It cost more than the machine has.
            Unavailable: The GPU failed.
        """
        self.check(*image_HW3.shape[:2])
        try:
            mask, confidence = self._session.run(list(OUTPUTS), {"image": image_HW3[None]})
        except Exception as error:
            fault = _fault_of_the_machine(error)
            if fault is None:
                raise
            raise fault from None
        return Prediction(mask[0], confidence[0])

    def check(self, height: int, width: int) -> None:
        """Refuse an image that costs too much, before anything is done about it. Raises ImageTooLarge."""
        if self._budget is not None:
            self._budget.check(height, width)


def _open_session(graph: Path, threads: int, device: Device) -> Any:
    import onnxruntime as ort  # noqa: PLC0415 - 0.7 s, in the thread that loads and not before the port is open

    options = ort.SessionOptions()
    # An explicit number: by default it counts the machine's cores, not those that a container may use, and pins them.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Every image may have a size of its own: an arena would keep the memory of the largest for ever, and memory
    # patterns are only of use where shapes repeat.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Threads that spin between requests take the cores from decoding and from a run that trains beside us.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(graph), options, providers=_providers(ort, device))
    except Exception as error:
        invalid = BundleInvalid(
            f"onnxruntime does not load {graph.name} ({names_only(str(error))}): export the bundle again."
        )
        raise _fault_of_the_machine(error) or invalid from None


def _fault_of_the_machine(error: Exception) -> MaskloopError | None:
    """What to raise instead, where memory or the GPU failed; None where it was something else."""
    text = names_only(str(error))
    if isinstance(error, MemoryError) or NO_MEMORY.search(text):
        return OutOfMemory(
            "The machine had no memory left for this inference: scale the image down, or give the service more memory. "
            "Lower MASKLOOP_MAX_INFERENCE_BYTES so that such images are refused at once."
        )
    if NO_CUDA.search(text):
        return Unavailable(f"The GPU fails ({text}): look after its driver, or set MASKLOOP_DEVICE=cpu.")
    return None


def _providers(ort: Any, device: Device) -> list[Any]:
    if device == "cpu" or CUDA not in ort.get_available_providers():
        return [CPU]
    # The wheel's own CUDA libraries have to be in the process before the first session looks for them.
    ort.preload_dlls()
    # HEURISTIC: the exhaustive search runs again for every new image size. SameAsRequested: the arena only doubles
    # its memory otherwise.
    cuda = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
    return [(CUDA, cuda), CPU]


def _check_face(session: Any) -> None:
    for kind, wanted, found in (
        ("input", INPUTS, session.get_inputs()),
        ("output", OUTPUTS, session.get_outputs()),
    ):
        types = {tensor.name: tensor.type for tensor in found}
        for name, allowed in wanted.items():
            if types.get(name) not in allowed:
                raise BundleInvalid(
                    f"the graph's {kind} {name!r} is {types.get(name)} and must be {' or '.join(sorted(allowed))}: "
                    "export the bundle with this repository's exporter."
                )
