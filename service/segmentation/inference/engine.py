"""Run a bundle's graph of whole images in onnxruntime."""

# N images, H W pixels, D channels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import BundleInvalid, OutOfMemory
from service.segmentation.inference.cancellation import CancelCheck, InferenceCancelled, never_cancelled
from service.segmentation.inference.memory_budget import MemoryBudget
from service.segmentation.inference.predictor import Pixels, Plan, Prediction
from service.segmentation.inference.providers import CPU, Device
from service.segmentation.inference.resample import enlarged, resized
from service.segmentation.inference.session_pool import SessionPool

INPUTS = {"image": {"tensor(uint8)"}}
EMBEDDING = "embedding"
OUTPUTS = {"mask": {"tensor(uint8)", "tensor(uint16)"}, "confidence": {"tensor(uint8)"}}


class Engine:
    """A loaded graph: the `Predictor` of a bundle without sliding windows. Its memory is freed with it.

    Attributes:
        cores: Most threads of one inference.
        max_batch: Most images to run together; 1 on a CPU, where batches are not faster.
    """

    def __init__(
        self,
        graph: Path,
        *,
        threads: int,
        device: Device = "auto",
        budget: MemoryBudget | None = None,
        max_batch: int = 1,
        embedding: int | None = None,
        tensorrt: Mapping[str, str] | None = None,
        engine_cache: Path | None = None,
    ) -> None:
        """Load the graph, an .onnx file of a bundle, and check its inputs and outputs.

        One inference uses at most `threads` threads and the memory of `budget` (None: no limit); a GPU runs up to
        `max_batch` images together. `embedding` is the length of the embeddings (None: they are not computed).
        `tensorrt` holds TensorRT's options; it keeps its engines in the folder `engine_cache`.

        Raises:
            BundleInvalid: The file is not an ONNX graph, or has other inputs and outputs.
            Unavailable: The device, if not "auto", does not work, or the machine ran out of memory.
        """
        self._budget = budget
        self._sessions = SessionPool(
            graph, threads=threads, device=device, tensorrt=tensorrt, engine_cache=engine_cache
        )
        _check_signature(self._sessions)
        if embedding is not None:
            check_embedding(self._sessions.outputs, embedding)
        self._outputs = [*OUTPUTS, *([] if embedding is None else [EMBEDDING])]
        self.provider, self.cores = self._sessions.provider, self._sessions.cores
        self.max_batch = 1 if self.provider == CPU else max_batch

    def threads_for(self, *, free: int, load: int) -> int:
        """See `Predictor`."""
        return self._sessions.threads_for(free=free, load=load)

    def plan(self, height: int, width: int) -> Plan:
        """See `Predictor`. A batch has the memory limit of a single image."""
        if self._budget is None:
            return Plan((height, width), 0, self.max_batch)
        size = self._budget.largest_size(height, width)
        estimated_bytes = self._budget.estimate(*size)
        return Plan(size, estimated_bytes, max(1, min(self.max_batch, self._budget.max_bytes // estimated_bytes)))

    def run(
        self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
    ) -> Prediction:
        """See `Predictor`. `is_cancelled` is called before the graph runs; a `Cancellation` also stops it.

        An image above the memory limit is scaled down if the graph would scale it down further anyway. This moves
        class borders by about a pixel of the smaller image; `Prediction.scale` reports it.
        """
        full = image_HW3.shape[0], image_HW3.shape[1]
        size = self.plan(*full).size
        if is_cancelled():
            raise InferenceCancelled
        (found,) = self._run(resized(image_HW3, size)[None], threads, is_cancelled)
        if size == full:
            return found
        mask_HW, confidence_HW = enlarged(found.mask_HW, full), enlarged(found.confidence_HW, full)
        return Prediction(mask_HW, confidence_HW, found.embedding_D, scale=max(size) / max(full))

    def run_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        """See `Predictor`. Runs the images one by one if they need scaling or the batch runs out of memory."""
        if len(images) > 1 and self.plan(*images[0].shape[:2]).size == images[0].shape[:2]:
            try:
                return self._run(np.stack(images), None)
            except OutOfMemory:
                pass
        return [self.run(image_HW3) for image_HW3 in images]

    def _run(
        self, image_NHW3: Pixels, threads: int | None, is_cancelled: CancelCheck = never_cancelled
    ) -> list[Prediction]:
        found = self._sessions.run(self._outputs, {"image": image_NHW3}, threads, is_cancelled)
        return [Prediction(*each) for each in zip(*found, strict=True)]


def check_embedding(outputs: Sequence[Any], dimensions: int) -> None:
    """Raise BundleInvalid if a graph's outputs lack the embedding, float16 [N, `dimensions`]."""
    found = {output.name: (output.type, list(output.shape[1:])) for output in outputs}.get(EMBEDDING)
    if found != ("tensor(float16)", [dimensions]):
        raise BundleInvalid(
            f"The graph's output {EMBEDDING!r} is {found}; the manifest requires float16 [N, {dimensions}]: export the "
            "bundle again."
        )


def _check_signature(sessions: SessionPool) -> None:
    for kind, wanted, found in (("input", INPUTS, sessions.inputs), ("output", OUTPUTS, sessions.outputs)):
        types = {tensor.name: tensor.type for tensor in found}
        for name, allowed in wanted.items():
            if types.get(name) not in allowed:
                raise BundleInvalid(
                    f"The graph's {kind} {name!r} is {types.get(name)}, not {' or '.join(sorted(allowed))}: "
                    "export the bundle with this repository's exporter."
                )
