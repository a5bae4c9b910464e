"""Vectors of images in files: row n belongs to the image with sequence n. Rows of zeros have no vector.

Files are read in parts through a memory map, so a million images never are in memory. They have holes where images were
not analysed.
"""

# N rows, D numbers of a vector

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class VectorFile:
    """A file of vectors of one length. Several processes may read and write it."""

    path: Path
    dtype: np.dtype[Any]
    width: int

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return self.width * self.dtype.itemsize

    def write(self, sequences: Sequence[int], vectors_ND: npt.NDArray[Any]) -> None:
        """Write rows durably."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            for sequence, vector_D in zip(sequences, vectors_ND.astype(self.dtype), strict=True):
                os.pwrite(descriptor, vector_D.tobytes(), sequence * self.row_bytes)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def erase(self, *sequences: int) -> None:
        """Overwrite rows with zeros, if they exist."""
        rows = self.rows()
        present = [sequence for sequence in sequences if sequence < rows]
        if present:
            self.write(present, np.zeros((len(present), self.width)))

    def rows(self) -> int:
        """Number of rows, with those of zeros."""
        return self.path.stat().st_size // self.row_bytes if self.path.exists() else 0

    def read(self, sequences: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Read rows, [N, D]; zeros for those that do not exist."""
        wanted_N = np.asarray(sequences, dtype=np.int64)
        found_ND = np.zeros((len(wanted_N), self.width), self.dtype)
        mapped = self._mapped()
        exists_N = wanted_N < len(mapped)
        found_ND[exists_N] = mapped[wanted_N[exists_N]]
        return found_ND

    def slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read the rows from `start` to before `stop`, [N, D]; zeros for those that do not exist."""
        found_ND = np.zeros((stop - start, self.width), self.dtype)
        stored_ND = self._mapped()[start:stop]
        found_ND[: len(stored_ND)] = stored_ND
        return found_ND

    def _mapped(self) -> npt.NDArray[Any]:
        rows = self.rows()
        if rows == 0:
            return np.zeros((0, self.width), self.dtype)
        return np.memmap(self.path, self.dtype, mode="r", shape=(rows, self.width))


class VectorFolder:
    """DATA/embeddings: `VERSION.DIMENSIONS.f16` for each model version, and `hashes.u64`, perceptual hashes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def embeddings(self, version: str, dimensions: int) -> VectorFile:
        """File of a model's embeddings."""
        return VectorFile(self._folder / f"{version}.{dimensions}.f16", np.dtype(np.float16), dimensions)

    def hashes(self) -> VectorFile:
        """File of the perceptual hashes."""
        return VectorFile(self._folder / "hashes.u64", np.dtype(np.uint64), 1)

    def erase(self, *sequences: int) -> None:
        """Erase everything about images."""
        self.hashes().erase(*sequences)
        for path in self._folder.glob("*.f16"):
            version, dimensions = path.stem.rsplit(".", 1)
            self.embeddings(version, int(dimensions)).erase(*sequences)

    def delete(self, version: str) -> None:
        """Delete the file of a version."""
        for path in self._folder.glob("*.f16"):
            if path.stem.rsplit(".", 1)[0] == version:
                path.unlink(missing_ok=True)
