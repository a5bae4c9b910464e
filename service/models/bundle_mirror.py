"""Copies of bundles in the object store, for processes on other machines."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from service.models.bundle import MANIFEST, read_bundle
from service.storage.object_store import open_object_store, reported, reported_writes


class BundleMirror:
    """Bundles as objects URL/models/VERSION/FILE; one is complete if it has a manifest."""

    def __init__(self, url: str) -> None:
        self._files, root = open_object_store(url)
        self._root = f"{root}/models"

    def upload(self, folder: Path, names: Sequence[str]) -> None:
        """Upload files of a bundle, the manifest last."""
        with reported_writes():
            for name in sorted(names, key=lambda name: name == MANIFEST):
                self._files.put_file(str(folder / name), f"{self._root}/{folder.name}/{name}")

    def download(self, folder: Path) -> None:
        """Download a bundle to a folder that does not exist. Raises BundleInvalid, or FileNotFoundError."""
        source = f"{self._root}/{folder.name}"
        temporary = folder.with_name(f".download-{uuid4().hex}")
        try:
            with reported():
                self._fetch(source, temporary)
            read_bundle(temporary)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def delete(self, version: str) -> None:
        """Delete a bundle, the manifest first: nobody downloads the rest."""
        with suppress(FileNotFoundError), reported():
            paths = self._files.ls(f"{self._root}/{version}", detail=False)
            for path in sorted(paths, key=lambda path: not path.endswith(f"/{MANIFEST}")):
                self._files.rm_file(path)

    def _fetch(self, source: str, folder: Path) -> None:
        if not self._files.exists(f"{source}/{MANIFEST}"):
            raise FileNotFoundError(source)
        folder.mkdir(parents=True)
        for path in self._files.ls(source, detail=False):
            self._files.get_file(path, str(folder / path.rpartition("/")[2]))
