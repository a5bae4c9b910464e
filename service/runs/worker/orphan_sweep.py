"""Delete what killed processes have left: files that were stored for a row that was never written, temporary files.

Idempotent.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import structlog

from service.images.image_store import ImageStore
from service.settings import Settings
from service.storage.blob_store import COLLECTIONS
from service.storage.local_blobs import unconfirmed_folder
from service.storage.stale_files import StaleFiles

log = structlog.stdlib.get_logger(__name__)

# Without a change, after which a process must have died, or failed.
UNCHANGED_HEARTBEATS = 24
IMPORTS = (".import-*", ".damaged-*")


class OrphanSweep:
    """The sweep of a worker."""

    def __init__(self, settings: Settings, images: ImageStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._images = images
        unchanged_s = UNCHANGED_HEARTBEATS * settings.heartbeat_s
        blobs, models = settings.data_dir / "blobs", settings.data_dir / "models"
        self._blobs = {
            name: StaleFiles([(unconfirmed_folder(blobs, name), "*")], unchanged_s, clock) for name in COLLECTIONS
        }
        self._imports = StaleFiles([(models, pattern) for pattern in IMPORTS], unchanged_s, clock)

    def step(self) -> int:
        """Delete what has not changed for long; return the number of files and folders."""
        stale = {name: files.find() for name, files in self._blobs.items()}
        self._images.delete_unused_images([path.name.partition(".")[0] for path in stale["images"]])
        for path in stale["images"]:
            path.unlink(missing_ok=True)
        for path in stale["masks"]:
            self._images.delete_unused_mask(path.name.partition(".")[0])
            path.unlink(missing_ok=True)
        imports = self._imports.find()
        for path in imports:
            shutil.rmtree(path, ignore_errors=True)
        deleted = len(imports) + sum(len(paths) for paths in stale.values())
        if deleted:
            log.info("files deleted that a killed process or a failed request had left", files=deleted)
        return deleted
