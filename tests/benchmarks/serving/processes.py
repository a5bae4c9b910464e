"""Find the processes of a server in /proc, and measure their memory and CPU time."""

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KIB = 1024


def process_tree(root: int) -> list[int]:
    """Return a process, its descendants, and all processes of its session, even if their parent has ended."""
    parents, sessions = {}, {}
    for pid in (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()):
        if fields := _stat(pid):
            parents[pid], sessions[pid] = int(fields[1]), int(fields[3])
    found = {pid for pid, session in sessions.items() if session == root}
    found |= {root} & parents.keys()
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU seconds of processes since their start, including their children that have ended."""
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(pid))) / TICKS_PER_S


def busy_seconds() -> float:
    """Return the CPU seconds of all programs since the machine started, including time stolen by a hypervisor."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def resident_bytes(pids: list[int]) -> int:
    """Return the resident memory of processes, each shared page counted once.

    For one process this is its resident set. The proportional set (PSS) would depend on how many unrelated processes,
    such as the other servers of this benchmark, map the same libraries.
    """
    private_bytes = 0
    shared_bytes: dict[tuple[str, str], int] = {}
    for pid in pids:
        own: dict[tuple[str, str], int] = {}
        for key, private, shared in _mappings(pid):
            private_bytes += private
            own[key] = own.get(key, 0) + shared
        for key, shared in own.items():
            shared_bytes[key] = max(shared_bytes.get(key, 0), shared)
    return private_bytes + sum(shared_bytes.values())


def _mappings(pid: int) -> Iterator[tuple[tuple[str, str], int, int]]:
    """Yield key, private bytes and shared bytes of each mapping.

    The key is the file or, for anonymous memory, the address, which forked processes share.
    """
    key, private, shared = ("", ""), 0, 0
    for line in _lines(pid, "smaps"):
        name, *values = line.split()
        if not name.endswith(":"):
            yield key, private, shared
            device, inode = values[2], values[3]
            key, private, shared = (device, inode if inode != "0" else name), 0, 0
        elif name.startswith("Private_") and name != "Private_Hugetlb:":
            private += int(values[0]) * KIB
        elif name in ("Shared_Clean:", "Shared_Dirty:"):
            shared += int(values[0]) * KIB
    yield key, private, shared


def _stat(pid: int) -> list[str]:
    """Return /proc/PID/stat from the third field on: state, parent, group, session, ...; empty if it has ended."""
    lines = _lines(pid, "stat")
    return lines[0].rpartition(")")[2].split() if lines else []


def _lines(pid: int, name: str) -> list[str]:
    try:
        return (PROC / str(pid) / name).read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []
