"""Run graph files with onnxruntime on the CPU, and measure their speed."""

# N images, K classes, D channels, H W pixels, T U height and width of a window, 3 = RGB

import statistics
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from exporter.manifest import Speed
from exporter.probe import Bytes, Embedding, Outputs, scene

CPU = "CPUExecutionProvider"
SPEED_SIZE = (384, 512)
"""Height and width, pixels."""
MASK_TYPES = ("tensor(uint8)", "tensor(uint16)")
EMBEDDING, EMBEDDING_TYPE = "embedding", ("tensor(float16)", 2)
"""Name, and type and number of dimensions, of the optional output."""


class OnnxPredictor:
    """A graph file as a callable."""

    def __init__(self, graph: Path, *, threads: int = 0, mask_types: Collection[str] = MASK_TYPES) -> None:
        """Load a graph, to run each operator with `threads` (0 = onnxruntime's default).

        Raises ValueError if onnxruntime cannot load the file, or it is not the graph of a bundle.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors: its warnings are about optimisations that do not apply
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=[CPU])
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise ValueError(f"{graph}: onnxruntime cannot load it ({error}); export the bundle again") from error
        values = [*self._session.get_inputs(), *self._session.get_outputs()]
        found = {value.name: (value.type, len(value.shape)) for value in values}
        self.embedding = found.pop(EMBEDDING, None) == EMBEDDING_TYPE
        accepted = [
            {"image": ("tensor(uint8)", 4), "mask": (kind, 3), "confidence": ("tensor(uint8)", 3)}
            for kind in mask_types
        ]
        if found not in accepted or (EMBEDDING in {value.name for value in values} and not self.embedding):
            raise ValueError(f"{graph}: inputs and outputs are {found}, not a bundle's; export the bundle again")
        for value in values:
            if any(isinstance(side, int) for side in value.shape[: 1 if value.name == EMBEDDING else 3]):
                raise ValueError(f"{graph}: {value.name} has the fixed shape {value.shape}; export the bundle again")

    def __call__(self, image_NHW3: Bytes) -> Outputs:
        """Masks, confidences and, if the graph has them, embeddings of images uint8 [N,H,W,3]."""
        names = ["mask", "confidence", *([EMBEDDING] if self.embedding else [])]
        return Outputs(*self._session.run(names, {"image": image_NHW3}))


def run_tile_graph(graph: Path, image_NTU3: Bytes) -> tuple[npt.NDArray[np.float32], Embedding | None]:
    """Class probabilities of windows, float32 [N,K,T,U], and embeddings [N,D], if any, for uint8 [N,T,U,3].

    Raises ValueError for another graph.
    """
    try:
        session = onnxruntime.InferenceSession(graph, providers=[CPU])
        optional = [value.name for value in session.get_outputs() if value.name == EMBEDDING]
        probability_NKTU, *embedding_ND = session.run(["probability", *optional], {"image": image_NTU3})
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise ValueError(
            f"{graph}: is not the graph of a {image_NTU3.shape[2]}x{image_NTU3.shape[1]} window ({error}); "
            "export the bundle again"
        ) from error
    return probability_NKTU, embedding_ND[0] if embedding_ND else None


def measure_speed(graph: Path, *, threads: int, budget_s: float = 2.0) -> Speed:
    """Median time for one image of SPEED_SIZE over up to nine runs, after one warm-up run."""
    predict = OnnxPredictor(graph, threads=threads)
    image_1HW3 = scene(*SPEED_SIZE, seed=0)[None]
    predict(image_1HW3)
    seconds: list[float] = []
    while len(seconds) < 9 and sum(seconds) < budget_s:
        start = time.perf_counter()
        predict(image_1HW3)
        seconds.append(time.perf_counter() - start)
    milliseconds = round(1000 * statistics.median(seconds), 2)
    return Speed(ms_per_image=milliseconds, size=SPEED_SIZE, provider=CPU, threads=threads)
