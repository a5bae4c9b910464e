"""Run a bundle's graph of one window in onnxruntime: windows in, probabilities and embeddings out."""

# N windows, K classes, D channels, T U height and width of a window

from __future__ import annotations

from pathlib import Path

from service.errors import BundleInvalid
from service.segmentation.inference.cancellation import CancelCheck, never_cancelled
from service.segmentation.inference.engine import EMBEDDING, check_embedding
from service.segmentation.inference.predictor import Pixels
from service.segmentation.inference.providers import Device
from service.segmentation.inference.session_pool import SessionPool
from service.segmentation.inference.windows.sliding import WindowOutputs

IMAGE, PROBABILITY = "image", "probability"


class WindowSession:
    """A loaded graph; `provider` is onnxruntime's name of its execution provider. All methods are thread-safe."""

    def __init__(
        self,
        graph: Path,
        *,
        threads: int,
        window: tuple[int, int],
        classes: int,
        embedding: int | None = None,
        device: Device = "auto",
    ) -> None:
        """Load the graph, model.tile.onnx of a bundle, and check its inputs and outputs.

        `window` is height and width, pixels; `threads` the most for one inference; `embedding` the length of the
        embeddings (None: they are not computed).

        Raises:
            BundleInvalid: The file is not an ONNX graph, or has another window size or number of classes, or lacks the
                embedding.
            Unavailable: The device, if not "auto", does not work, or the machine ran out of memory.
        """
        self._sessions = SessionPool(graph, threads=threads, device=device)
        self.provider = self._sessions.provider
        # A later exporter may add outputs.
        values = [*self._sessions.inputs, *(each for each in self._sessions.outputs if each.name == PROBABILITY)]
        found = [(value.name, value.type, list(value.shape[1:])) for value in values]
        expected = [(IMAGE, "tensor(uint8)", [*window, 3]), (PROBABILITY, "tensor(float)", [classes, *window])]
        if found != expected:
            raise BundleInvalid(
                f"The inputs and outputs of {graph.name} are {found}; its manifest requires {expected}: export the "
                "bundle again."
            )
        if embedding is not None:
            check_embedding(self._sessions.outputs, embedding)
        self._outputs = [PROBABILITY, *([] if embedding is None else [EMBEDDING])]

    def threads_for(self, *, free: int, load: int) -> int:
        """Number of threads for the next image; see `thread_counts.choose_threads`."""
        return self._sessions.threads_for(free=free, load=load)

    def run(
        self, image_NTU3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
    ) -> WindowOutputs:
        """Run windows, uint8 [N, T, U, 3]. A `Cancellation` stops the graph while it runs.

        Raises:
            InferenceCancelled: It was stopped.
            OutOfMemory: The machine ran out of memory.
            Unavailable: The GPU failed.
        """
        return WindowOutputs(*self._sessions.run(self._outputs, {IMAGE: image_NTU3}, threads, is_cancelled))
