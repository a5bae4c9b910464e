"""Files of vectors by sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from service.storage.vector_file import VectorFolder


def test_rows_are_found_by_sequence_and_missing_ones_are_zero(tmp_path: Path) -> None:
    file = VectorFolder(tmp_path / "new").embeddings("v1", 3)
    assert file.rows() == 0
    assert file.read([4]).tolist() == [[0, 0, 0]]
    file.write([5, 2], np.array([[1, 2, 3], [4, 5, 6]]))
    assert file.path.stat().st_size == 6 * 3 * 2
    assert file.read([2, 5, 3, 99]).tolist() == [[4, 5, 6], [1, 2, 3], [0, 0, 0], [0, 0, 0]]
    assert file.slice(4, 8).tolist() == [[0, 0, 0], [1, 2, 3], [0, 0, 0], [0, 0, 0]]
    assert file.read([5]).dtype == np.float16


def test_erasing_reaches_every_file_and_only_that_row(tmp_path: Path) -> None:
    folder = VectorFolder(tmp_path)
    files = [folder.embeddings("v1.2", 3), folder.embeddings("v2", 2), folder.hashes()]
    for file in files:
        file.write([1, 2], np.ones((2, file.width)))
    folder.erase(1)
    folder.erase(50)
    for file in files:
        assert file.read([1, 2]).any(axis=1).tolist() == [False, True]
        assert file.rows() == 3


def test_files_of_a_version_are_deleted(tmp_path: Path) -> None:
    folder = VectorFolder(tmp_path)
    for version in ("v1", "v1.5"):
        folder.embeddings(version, 3).write([1], np.ones((1, 3)))
    folder.delete("v1")
    assert [path.name for path in tmp_path.iterdir()] == ["v1.5.3.f16"]
