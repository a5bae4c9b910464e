"""Number of CPU cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Count the cores that CPU affinity and the container's quota (rounded up) allow, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """Smallest CPU quota of this process's control groups (version 1 or 2), in cores; None without a quota.

    In a container, `membership` may list paths of the host; then only the container's own group is mounted.
    """
    found = []
    for line in _read(membership).splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0":
            found += [_cores(*_read(folder / "cpu.max").split()) for folder in _chain(cgroups, path)]
        elif "cpu" in controllers.split(","):
            folders = _chain(cgroups / "cpu", path)
            found += [_cores(_read(own / "cpu.cfs_quota_us"), _read(own / "cpu.cfs_period_us")) for own in folders]
    return min((quota for quota in found if quota is not None), default=None)


def _chain(root: Path, path: str) -> list[Path]:
    """A group's folder and its parents."""
    own = root / path.lstrip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(root))]


def _cores(quota: str = "", period: str = "") -> float | None:
    # Without a quota, version 2 has "max" and version 1 has -1.
    quota, period = quota.strip(), period.strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) > 0 else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
