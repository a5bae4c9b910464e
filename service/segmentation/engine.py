"""One graph in onnxruntime: images in, masks and confidences out."""

# N images, H W pixels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import BundleInvalid, OutOfMemory
from service.segmentation.budget import Budget
from service.segmentation.providers import CPU, Device, check_provider, providers
from service.segmentation.session import fault_of_the_machine, open_session
from service.segmentation.widths import width, widths_for

Mask = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Pixels = npt.NDArray[np.uint8]

INPUTS = {"image": {"tensor(uint8)"}}
OUTPUTS = {"mask": {"tensor(uint8)", "tensor(uint16)"}, "confidence": {"tensor(uint8)"}}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the graph said about one image."""

    mask_HW: Mask
    """Class ids, uint8 or (above 256 classes) uint16, of the image's size."""
    confidence_HW: npt.NDArray[np.uint8]
    """How sure it is of each pixel: 255 = 1.0."""


class Engine:
    """A loaded graph. `run` may be called from several threads at one time; the memory goes with the last reference.

    Attributes:
        provider: onnxruntime's name of what it runs on.
        cores: That it may use.
        max_batch: Images that are worth running together; 1 on a CPU, which computes them one after the other.
    """

    def __init__(
        self,
        graph: Path,
        *,
        threads: int,
        device: Device = "auto",
        budget: Budget | None = None,
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
        import onnxruntime as ort  # noqa: PLC0415 - 0.7 s, in the thread that loads and not before the port is open

        self._budget = budget
        self.cores = threads
        chosen = providers(ort, device, tensorrt=tensorrt, cache=engine_cache)
        widest = open_session(ort, graph, threads=threads, providers=chosen)
        self.provider = check_provider(widest, device)
        _check_face(widest)
        # A GPU's threads are not these.
        narrower = widths_for(threads)[:-1] if self.provider == CPU else ()
        self._sessions = {each: open_session(ort, graph, threads=each, providers=chosen) for each in narrower}
        self._sessions[threads] = widest
        self.max_batch = 1 if self.provider == CPU else max_batch

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of threads with which it can run, the smallest first."""
        return tuple(self._sessions)

    def width(self, *, free: int, load: int) -> int:
        """How many threads an inference should have now; see `widths.width`."""
        return width(self.widths, cores=self.cores, free=free, load=load)

    def run(self, image_HW3: Pixels, threads: int | None = None) -> Prediction:
        """Segment one image.

        Args:
            image_HW3: uint8 [H, W, 3], RGB, 0..255.
            threads: One of `widths`; None: the most.

        Raises:
            ImageTooLarge: It would cost more than the budget.
            OutOfMemory: It cost more than the machine has.
            Unavailable: The GPU failed.
        """
        self.check(*image_HW3.shape[:2])
        return self._run(image_HW3[None], threads)[0]

    def run_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        """Segment images of one size together; one by one, where there is not memory enough for that.

        Args:
            images: uint8 [H, W, 3] each, of one size, RGB, 0..255.

        Raises:
            As `run`.
        """
        for image_HW3 in images[:1]:
            self.check(*image_HW3.shape[:2])
        if len(images) < 2:
            return [self.run(image_HW3) for image_HW3 in images]
        try:
            return self._run(np.stack(images), None)
        except OutOfMemory:
            return [self.run(image_HW3) for image_HW3 in images]

    def check(self, height: int, width: int) -> None:
        """Refuse an image that costs too much, before anything is done about it. Raises ImageTooLarge."""
        if self._budget is not None:
            self._budget.check(height, width)

    def _run(self, image_NHW3: Pixels, threads: int | None) -> list[Prediction]:
        session = self._sessions[threads or self.cores]
        try:
            mask_NHW, confidence_NHW = session.run(list(OUTPUTS), {"image": image_NHW3})
        except Exception as error:
            fault = fault_of_the_machine(error)
            if fault is None:
                raise
            raise fault from None
        return [Prediction(*each) for each in zip(mask_NHW, confidence_NHW, strict=True)]


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
