"""The clock of the service's processes, which is set while they run: `settable_clock.c`, compiled and preloaded."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("settable_clock.c")
OFFSET = struct.Struct("=q")


class Clock:
    """Steps of CLOCK_REALTIME relative to the true time. CLOCK_MONOTONIC stays as it is, as on a real machine."""

    def __init__(self, folder: Path) -> None:
        self._file, library = folder / "clock", folder / "settable_clock.so"
        self._file.write_bytes(OFFSET.pack(0))
        compiler = shutil.which("cc")
        self.problem = ""
        """Why it cannot be set."""
        if sys.platform != "linux" or compiler is None:
            self.problem = "setting the clock of processes needs Linux and a C compiler (`cc`)"
            return
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        if compiled.returncode != 0:
            self.problem = f"settable_clock.c was not compiled: {compiled.stderr.strip()[:200]}"
        self._library = library

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make a process, and those that it starts, follow this clock."""
        return {} if self.problem else {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file)}

    def set(self, offset_s: int) -> None:
        """Set the clock to the true time plus an offset; all processes follow at once."""
        with self._file.open("r+b") as file:
            file.write(OFFSET.pack(offset_s))
