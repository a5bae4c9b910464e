"""Run a bundle's graph of one window in onnxruntime: windows in, probabilities out."""

# N windows, K classes, T U height and width of a window

from __future__ import annotations

from pathlib import Path

from service.errors import BundleInvalid
from service.segmentation.inference.predictor import Pixels
from service.segmentation.inference.providers import Device
from service.segmentation.inference.session_pool import SessionPool
from service.segmentation.inference.windows.sliding import Floats

IMAGE, PROBABILITY = "image", "probability"


class WindowSession:
    """A loaded graph; `provider` is onnxruntime's name of its execution provider. All methods are thread-safe."""

    def __init__(
        self, graph: Path, *, threads: int, window: tuple[int, int], classes: int, device: Device = "auto"
    ) -> None:
        """Load the graph, model.tile.onnx of a bundle, and check its inputs and outputs.

        `window` is height and width, pixels; `threads` the most for one inference.

        Raises:
            BundleInvalid: The file is not an ONNX graph, or has another window size or number of classes.
            Unavailable: The device, if not "auto", does not work, or the machine ran out of memory.
        """
        self._sessions = SessionPool(graph, threads=threads, device=device)
        self.provider = self._sessions.provider
        values = [*self._sessions.inputs, *self._sessions.outputs]
        found = [(value.name, value.type, list(value.shape[1:])) for value in values]
        expected = [(IMAGE, "tensor(uint8)", [*window, 3]), (PROBABILITY, "tensor(float)", [classes, *window])]
        if found != expected:
            raise BundleInvalid(
                f"The inputs and outputs of {graph.name} are {found}; its manifest requires {expected}: export the "
                "bundle again."
            )

    def threads_for(self, *, free: int, load: int) -> int:
        """Number of threads for the next image; see `thread_counts.choose_threads`."""
        return self._sessions.threads_for(free=free, load=load)

    def probabilities(self, image_NTU3: Pixels, threads: int | None = None) -> Floats:
        """Softmax over the classes, float32 [N, K, T, U], of windows uint8 [N, T, U, 3].

        Raises:
            OutOfMemory: The machine ran out of memory.
            Unavailable: The GPU failed.
        """
        found: list[Floats] = self._sessions.run([PROBABILITY], {IMAGE: image_NTU3}, threads)
        return found[0]
