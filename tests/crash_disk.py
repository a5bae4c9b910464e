"""A file system that loses what was not flushed to it, as a disk in a power cut: ext4 in a file."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.small_disk import Disk

# linux/fs/ext4/ext4.h: stop the file system without writing anything more, as the tests of file systems do.
EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = struct.pack("I", 2)
UNMOUNT_TIMEOUT_S = 20.0


class CrashDisk(Disk):
    """A mounted ext4."""

    def __init__(self, folder: Path, image: Path) -> None:
        super().__init__(folder)
        self._image = image

    def shut_down(self) -> None:
        """Lose what was not flushed: from now on nothing reaches the disk. Its users must be stopped, and be killed."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def mount_again(self) -> None:
        """Mount what is on the disk, once its last user has ended."""
        deadline = time.monotonic() + UNMOUNT_TIMEOUT_S
        while subprocess.run(["umount", str(self.folder)], capture_output=True, check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.folder} is still in use")
            time.sleep(0.1)
        self.mount()

    def mount(self) -> None:
        """Mount the disk."""
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.folder)], capture_output=True, check=True)


@contextmanager
def crash_disk(folder: Path, megabytes: int) -> Iterator[CrashDisk]:
    """Mount a disk at a new folder until the end of the block; skip the test where that is impossible."""
    image = folder.with_name(f"{folder.name}.img")
    with image.open("wb") as file:
        file.truncate(megabytes * 2**20)
    disk = CrashDisk(folder, image)
    folder.mkdir()
    try:
        subprocess.run(["mkfs.ext4", "-q", str(image)], capture_output=True, check=True)
        disk.mount()
    except (OSError, subprocess.CalledProcessError):
        folder.rmdir()
        pytest.skip("ext4 in a file needs root, loop devices and mkfs.ext4")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        image.unlink()
