"""One graph in onnxruntime: images in, masks and confidences out."""

# N images, H W pixels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from service.errors import BundleInvalid, OutOfMemory
from service.segmentation.inference.cancellation import Gone, InferenceCancelled, never_cancelled
from service.segmentation.inference.memory_budget import MemoryBudget
from service.segmentation.inference.prediction import Mask, Pixels, Prediction
from service.segmentation.inference.providers import CPU, Device
from service.segmentation.inference.reduced import segmented_at
from service.segmentation.inference.session_pool import SessionPool

__all__ = ["Engine", "Mask", "Pixels", "Prediction"]

INPUTS = {"image": {"tensor(uint8)"}}
OUTPUTS = {"mask": {"tensor(uint8)", "tensor(uint16)"}, "confidence": {"tensor(uint8)"}}


class Engine:
    """A loaded graph. `run` may be called from several threads at one time; the memory goes with the last reference.

    Attributes:
        provider: onnxruntime's name of what it runs on.
        cores: That it may use.
        max_batch: Images that are worth running together, if they are small; 1 on a CPU, which computes them one after
            the other.
    """

    def __init__(
        self,
        graph: Path,
        *,
        threads: int,
        device: Device = "auto",
        budget: MemoryBudget | None = None,
        max_batch: int = 1,
        tensorrt: Mapping[str, str] | None = None,
        engine_cache: Path | None = None,
    ) -> None:
        """Load the graph and look whether it is one of ours.

        Args:
            graph: One of a bundle's.
            threads: Of the widest session: the cores that inferences may use.
            device: Where it runs; all but "auto" refuse another place.
            budget: What one inference may cost. None: anything.
            max_batch: Images that a GPU takes at one time.
            tensorrt: Options of TensorRT's provider.
            engine_cache: Folder of TensorRT's engines.

        Raises:
            BundleInvalid: Not a graph, or not with our inputs and outputs.
            Unavailable: The device that was demanded does not work, or there is no memory.
        """
        self._budget = budget
        self._sessions = SessionPool(
            graph, threads=threads, device=device, tensorrt=tensorrt, engine_cache=engine_cache
        )
        _check_face(self._sessions)
        self.provider, self.cores = self._sessions.provider, self._sessions.cores
        self.max_batch = 1 if self.provider == CPU else max_batch

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of threads with which it can run, the smallest first."""
        return self._sessions.widths

    def width(self, *, free: int, load: int) -> int:
        """How many threads an inference should have now; see `widths.width`."""
        return self._sessions.width(free=free, load=load)

    def run(self, image_HW3: Pixels, threads: int | None = None, gone: Gone = never_cancelled) -> Prediction:
        """Segment one image; one that would cost more than the budget is reduced before, where that loses little.

        Args:
            image_HW3: uint8 [H, W, 3], RGB, 0..255.
            threads: One of `widths`; None: the most.
            gone: SegmentQuery before the graph is run.

        Raises:
            ImageTooLarge: It would cost more than the budget.
            OutOfMemory: It cost more than the machine has.
            Unavailable: The GPU failed.
            InferenceCancelled: `gone` said so.
        """
        size = self._fitting(*image_HW3.shape[:2])
        if gone():
            raise InferenceCancelled
        return segmented_at(size, image_HW3, lambda small_hw3: self._run(small_hw3[None], threads)[0])

    def run_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        """Segment images of one size together; one by one, where there is not memory enough for that.

        Args:
            images: uint8 [H, W, 3] each, of one size, RGB, 0..255.

        Raises:
            As `run`.
        """
        if len(images) < 2 or self._fitting(*images[0].shape[:2]) != images[0].shape[:2]:
            return [self.run(image_HW3) for image_HW3 in images]
        try:
            return self._run(np.stack(images), None)
        except OutOfMemory:
            return [self.run(image_HW3) for image_HW3 in images]

    def cost(self, height: int, width: int) -> int:
        """Bytes that an image may be expected to take. See `Predictor`."""
        size = self._fitting(height, width)
        return self._budget.cost(*size) if self._budget is not None else 0

    def batch(self, height: int, width: int) -> int:
        """Images of this size that may run together: what they cost stays within the budget of one. See `Predictor`."""
        if self._budget is None:
            return self.max_batch
        return max(1, min(self.max_batch, self._budget.max_bytes // self.cost(height, width)))

    def _fitting(self, height: int, width: int) -> tuple[int, int]:
        return self._budget.fitting(height, width) if self._budget is not None else (height, width)

    def _run(self, image_NHW3: Pixels, threads: int | None) -> list[Prediction]:
        mask_NHW, confidence_NHW = self._sessions.run(list(OUTPUTS), {"image": image_NHW3}, threads)
        return [Prediction(*each) for each in zip(mask_NHW, confidence_NHW, strict=True)]


def _check_face(sessions: SessionPool) -> None:
    for kind, wanted, found in (("input", INPUTS, sessions.inputs), ("output", OUTPUTS, sessions.outputs)):
        types = {tensor.name: tensor.type for tensor in found}
        for name, allowed in wanted.items():
            if types.get(name) not in allowed:
                raise BundleInvalid(
                    f"the graph's {kind} {name!r} is {types.get(name)} and must be {' or '.join(sorted(allowed))}: "
                    "export the bundle with this repository's exporter."
                )
