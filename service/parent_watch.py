"""Tie a program to the process that starts it: when the starter dies, however it dies, the program dies too.

Run as a script, by `tethered(command)`. On Linux it asks the kernel for SIGKILL at the parent's death and then
*becomes* the program, so that nothing stands in between: process id, exit code and signals are the program's own.
Elsewhere it stays beside the program and looks after the parent. It is a program of its own, not a `preexec_fn`,
because nothing may be run safely between fork and exec in a process that has threads.

The kernel watches the *thread* that started the program, so that thread has to live as long as the program may.
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
LOOK_EVERY_S = 0.25
PARENT_IS_GONE = 1


def tethered(command: list[str]) -> list[str]:
    """The command line that runs `command` tied to this process; start it in a session of its own."""
    # -I -S: neither the environment nor site-packages concern it, and it starts in 15 ms.
    return [sys.executable, "-I", "-S", str(Path(__file__).absolute()), str(os.getpid()), *command]


def main(arguments: list[str]) -> int:
    """`PARENT_PID PROGRAM [ARGUMENT...]`: run the program for as long as the parent lives, and return its exit code."""
    parent, command = int(arguments[0]), arguments[1:]
    if not sys.platform.startswith("linux"):
        return watch(parent, command)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        return watch(parent, command)
    # The parent may have died before the kernel was asked.
    if os.getppid() != parent:
        return PARENT_IS_GONE
    return os.execvp(command[0], command)  # noqa: S606 - a list, no shell


def watch(parent: int, command: list[str]) -> int:
    """Where the kernel cannot be asked: start the program, and end the whole process group when the parent has gone."""
    # Signals are sent to the group: they are for the program, and this process ends with it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    child = subprocess.Popen(command, close_fds=False, preexec_fn=_listen_again)  # noqa: PLW1509 - no threads here
    while child.poll() is None:
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)
        time.sleep(LOOK_EVERY_S)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _listen_again() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
