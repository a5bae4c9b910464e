"""Run graph files with onnxruntime on the CPU, and measure their speed."""

# N images, K classes, H W pixels, T U height and width of a window, 3 = RGB

import statistics
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from exporter.manifest import Speed
from exporter.probe import Bytes, Ids, scene

CPU = "CPUExecutionProvider"
SPEED_SIZE = (384, 512)
"""Height and width, pixels."""
MASK_TYPES = ("tensor(uint8)", "tensor(uint16)")


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
        accepted = [
            {"image": ("tensor(uint8)", 4), "mask": (kind, 3), "confidence": ("tensor(uint8)", 3)}
            for kind in mask_types
        ]
        if found not in accepted:
            raise ValueError(f"{graph}: inputs and outputs are {found}, not a bundle's; export the bundle again")
        for value in values:
            if any(isinstance(side, int) for side in value.shape[:3]):
                raise ValueError(f"{graph}: {value.name} has the fixed shape {value.shape}; export the bundle again")

    def __call__(self, image_NHW3: Bytes) -> tuple[Ids, Bytes]:
        """Mask [N,H,W] of class ids and confidence uint8 [N,H,W] for images uint8 [N,H,W,3]."""
        mask_NHW, confidence_NHW = self._session.run(["mask", "confidence"], {"image": image_NHW3})
        return mask_NHW, confidence_NHW


def run_tile_graph(graph: Path, image_NTU3: Bytes) -> npt.NDArray[np.float32]:
    """Class probabilities of windows, float32 [N,K,T,U], for uint8 [N,T,U,3]. Raises ValueError for another graph."""
    try:
        session = onnxruntime.InferenceSession(graph, providers=[CPU])
        probability_NKTU: npt.NDArray[np.float32] = session.run(["probability"], {"image": image_NTU3})[0]
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise ValueError(
            f"{graph}: is not the graph of a {image_NTU3.shape[2]}x{image_NTU3.shape[1]} window ({error}); "
            "export the bundle again"
        ) from error
    return probability_NKTU


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
