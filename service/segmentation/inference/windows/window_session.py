"""The graph of one window in onnxruntime: windows in, probabilities out."""

# N windows, K classes, T U height and width of a window

from __future__ import annotations

from pathlib import Path

from service.errors import BundleInvalid
from service.segmentation.inference.prediction import Pixels
from service.segmentation.inference.providers import Device
from service.segmentation.inference.session_pool import SessionPool
from service.segmentation.inference.windows.sliding import Floats

IMAGE, PROBABILITY = "image", "probability"


class WindowSession:
    """A loaded graph. `probabilities` may be asked from several threads at one time.

    Attributes:
        provider: onnxruntime's name of what it runs on.
    """

    def __init__(
        self, graph: Path, *, threads: int, window: tuple[int, int], classes: int, device: Device = "auto"
    ) -> None:
        """Load the graph and look whether it is one of such windows.

        Args:
            graph: model.tile.onnx of a bundle.
            threads: Of the widest session: the cores that inferences may use.
            window: Height and width, pixels.
            classes: How many it tells apart.
            device: Where it runs; all but "auto" refuse another place.

        Raises:
            BundleInvalid: Not a graph, or of other windows or classes.
            Unavailable: The device that was demanded does not work, or there is no memory.
        """
        self._sessions = SessionPool(graph, threads=threads, device=device)
        self.provider = self._sessions.provider
        values = [*self._sessions.inputs, *self._sessions.outputs]
        found = [(value.name, value.type, list(value.shape[1:])) for value in values]
        wanted = [(IMAGE, "tensor(uint8)", [*window, 3]), (PROBABILITY, "tensor(float)", [classes, *window])]
        if found != wanted:
            raise BundleInvalid(
                f"{graph.name} takes and gives {found} and must {wanted}, as its manifest says: export the bundle "
                "again."
            )

    def width(self, *, free: int, load: int) -> int:
        """How many threads it should have now; see `widths.width`."""
        return self._sessions.width(free=free, load=load)

    def probabilities(self, image_NTU3: Pixels, threads: int | None = None) -> Floats:
        """Probabilities of windows, float32 [N, K, T, U], of uint8 [N, T, U, 3].

        Raises:
            OutOfMemory: The machine had none left.
            Unavailable: The GPU failed.
        """
        found: list[Floats] = self._sessions.run([PROBABILITY], {IMAGE: image_NTU3}, threads)
        return found[0]
