"""Embedding of an image from those of its sliding windows."""

# D channels

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.segmentation.inference.predictor import Embedding


class MeanEmbedding:
    """Mean of the windows' embeddings, with length 1. A window that runs twice counts once."""

    def __init__(self) -> None:
        self._positions: set[tuple[int, int]] = set()
        self._sum_D: npt.NDArray[np.float32] | None = None

    def add(self, position: tuple[int, int], embedding_D: Embedding) -> None:
        """Add the embedding of the window at `position`, its first row and column."""
        if position in self._positions:
            return
        self._positions.add(position)
        values_D = embedding_D.astype(np.float32)
        self._sum_D = values_D if self._sum_D is None else self._sum_D + values_D

    def result(self) -> Embedding | None:
        """Return the mean, or None if no window had an embedding."""
        if self._sum_D is None:
            return None
        length = max(float(np.linalg.norm(self._sum_D)), 1e-12)
        return (self._sum_D / length).astype(np.float16)
