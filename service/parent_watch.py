"""Kill a program when its parent process dies, however the parent dies.

`killed_with_parent(command)` runs this file as a script. On Linux it asks the kernel for SIGKILL at the parent's death
(prctl PR_SET_PDEATHSIG) and becomes the program by `exec`, with its process id, exit code and signals. On other systems
it stays the program's parent and polls. A `preexec_fn` would be unsafe in a process with threads. The kernel watches
the *thread* that started the program, which must live as long as the program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
POLL_S = 0.25
PARENT_DIED = 1


def killed_with_parent(command: list[str]) -> list[str]:
    """Return the command line that runs `command` bound to this process. Start it with `start_new_session=True`."""
    # -I -S: it needs no environment and no site-packages, and starts in 15 ms.
    return [sys.executable, "-I", "-S", str(Path(__file__).absolute()), str(os.getpid()), *command]


def main(arguments: list[str]) -> int:
    """`PARENT_PID PROGRAM [ARGUMENT...]`: run the program until it ends or the parent dies; return its exit code."""
    parent, command = int(arguments[0]), arguments[1:]
    if not sys.platform.startswith("linux"):
        return run_and_poll(parent, command)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        return run_and_poll(parent, command)
    # The parent may have died before prctl.
    if os.getppid() != parent:
        return PARENT_DIED
    return os.execvp(command[0], command)  # noqa: S606 - a list, no shell


def run_and_poll(parent: int, command: list[str]) -> int:
    """Run the program as a child, and kill the process group when the parent has died."""
    # Signals to the group are meant for the program; this process ends with it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    child = subprocess.Popen(command, close_fds=False, preexec_fn=_restore_signals)  # noqa: PLW1509 - no threads here
    while child.poll() is None:
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)
        time.sleep(POLL_S)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _restore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
