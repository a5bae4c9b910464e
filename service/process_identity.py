"""Identity of a process that no other one can have later: the kernel's boot, PID namespace, process id, start time.

Process ids alone are reused, and processes in different containers have equal ones. Identities exist where there is a
/proc (Linux); elsewhere they are None, and nothing is known about other processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
POLL_S = 0.05
# For the kernel to end a process after SIGKILL.
KILL_TIMEOUT_S = 5.0


def process_identity(pid: int) -> str | None:
    """Return "BOOT_ID PID_NAMESPACE PID START_TIME" of a running process, or None if it has ended or is unknown."""
    start = _start_time(pid)
    return None if start is None else f"{_kernel()} {pid} {start}"


def has_ended(identity: str | None) -> bool:
    """Whether a process of this machine has ended; False if it runs, or nothing is known about it."""
    pid = _local_pid(identity)
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # It exists, whatever /proc shows to this user.
        return False
    return process_identity(pid) != identity


def end_group(identity: str | None, grace_s: float) -> bool:
    """End the process group of a process on this machine: SIGTERM, and SIGKILL after `grace_s` seconds.

    Returns whether the process was running.
    """
    pid = _local_pid(identity)
    if pid is None or has_ended(identity):
        return False
    _signal(pid, signal.SIGTERM)
    _wait(identity, grace_s)
    _signal(pid, signal.SIGKILL)
    _wait(identity, KILL_TIMEOUT_S)
    return True


def _wait(identity: str | None, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not has_ended(identity) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _local_pid(identity: str | None) -> int | None:
    """The process id, if the identity is of this boot and PID namespace."""
    if identity is None:
        return None
    kernel, pid, _ = identity.rsplit(" ", 2)
    return int(pid) if kernel == _kernel() else None


def _kernel() -> str | None:
    """Boot and PID namespace of this process, such as "8d6f... pid:[4026531836]"."""
    try:
        return f"{BOOT_ID.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """Clock ticks between boot and the start of a process; None if it has ended, even if its parent has not noticed."""
    try:
        # The command, in parentheses, may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
