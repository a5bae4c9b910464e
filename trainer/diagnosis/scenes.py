"""Whether all labelled images show one scene, which the other images do not show."""

# N images, D values of a thumbnail

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.data.dataset import Sample, SegmentationDataset
from trainer.data.map_in_threads import map_in_threads
from trainer.evaluation.audit import evenly_spaced

MOST, LEAST = 20, 3
"""Images that are compared, and labelled images that are needed."""
SIDE = 16
"""Width and height of a thumbnail, in pixels: layout and colours of the scene, no details."""

Thumbnails = npt.NDArray[np.float64]


def scene_similarity(
    labelled: tuple[SegmentationDataset, Sequence[Sample]], others: tuple[SegmentationDataset, Sequence[Sample]]
) -> tuple[float, float]:
    """Correlation of thumbnails, -1..1: the median over pairs of labelled images, and that of others with the nearest.

    (0, 1) if there are too few images to tell. Raises ImageError.
    """
    if len(labelled[1]) < LEAST or len(others[1]) < LEAST:
        return 0.0, 1.0
    own_ND, other_ND = thumbnails(*labelled), thumbnails(*others)
    pairs = np.triu_indices(len(own_ND), k=1)
    return float(np.median((own_ND @ own_ND.T)[pairs])), float(np.median((other_ND @ own_ND.T).max(axis=1)))


def thumbnails(dataset: SegmentationDataset, samples: Sequence[Sample]) -> Thumbnails:
    """Thumbnails of evenly spaced images, float [N,D], each with mean 0 and length 1, so that products correlate."""

    def read(sample: Sample) -> Thumbnails:
        small = Image.fromarray(dataset.read(sample)).resize((SIDE, SIDE), Image.Resampling.BOX)
        values_D = np.asarray(small, dtype=np.float64).flatten()
        centred_D = values_D - values_D.mean()
        scaled: Thumbnails = centred_D / max(float(np.linalg.norm(centred_D)), 1e-9)
        return scaled

    return np.stack(map_in_threads(read, evenly_spaced(samples, MOST), "scenes"))
