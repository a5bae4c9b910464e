"""Usable cores, from the control group files of Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cores import cpu_quota, usable_cores

Files = dict[str, str]


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        # Version 2, in a container: the group that is mounted is its own.
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/", {"cpu.max": "max 100000\n"}, None),
        # Version 2, on the host: the smallest quota among the parents applies.
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 0.5),
        # Version 2: the path is the host's, but the container's own group is mounted.
        ("0::/docker/0123", {"cpu.max": "300000 100000"}, 3.0),
        # Version 1, and both versions.
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.5),
        ("4:cpu,cpuacct:/\n0::/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:cpuset:/", {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, None),
        # Unreadable or invalid.
        ("", {}, None),
        ("nonsense", {"cpu.max": "nonsense"}, None),
        ("0::/", {"cpu.max": "100000 0"}, None),
        ("0::/../../etc", {"cpu.max": ""}, None),
    ],
)
def test_quota_of_the_control_groups(tmp_path: Path, membership: str, files: Files, quota: float | None) -> None:
    root = tmp_path / "cgroup"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (tmp_path / "self").write_text(membership)
    assert cpu_quota(root, tmp_path / "self") == quota


@pytest.mark.parametrize(("quota", "cores"), [(0.2, 1), (1.0, 1), (1000.0, None)])
def test_smaller_of_quota_and_affinity_applies(
    monkeypatch: pytest.MonkeyPatch, quota: float, cores: int | None
) -> None:
    monkeypatch.setattr("service.cores.cpu_quota", lambda: None)
    without = usable_cores()
    monkeypatch.setattr("service.cores.cpu_quota", lambda: quota)
    assert usable_cores() == (cores or without)
