"""What the machine grants this process: CPUs by cgroup quota and affinity, memory, shared memory.

Deciding what to do with it is left to `plan`.
"""

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
SHM = Path("/dev/shm")  # noqa: S108 - the kernel's shared-memory mount, nothing is created there


@dataclass(frozen=True)
class Resources:
    """CPUs as a whole number of usable cores, memory and shared memory in bytes."""

    cpus: int
    memory_bytes: int
    shm_bytes: int


def read_resources(cgroup_root: Path = CGROUP_ROOT, shm: Path = SHM) -> Resources:
    """Read the limits of this process; cgroup v2, then v1, then the machine itself."""
    return Resources(cpus=usable_cpus(cgroup_root), memory_bytes=_memory_bytes(cgroup_root), shm_bytes=_shm_bytes(shm))


def usable_cpus(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Return the cores that affinity and the cgroup's quota leave, at least 1."""
    affinity = len(os.sched_getaffinity(0))
    quota = _cpu_quota(cgroup_root)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def _cpu_quota(root: Path) -> float | None:
    modern = _words(root / "cpu.max")
    if len(modern) == 2:
        return None if modern[0] == "max" else int(modern[0]) / int(modern[1])
    quota, period = _words(root / "cpu/cpu.cfs_quota_us"), _words(root / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return int(quota[0]) / int(period[0])
    return None


def _memory_bytes(root: Path) -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        words = _words(root / name)
        if words and words[0] != "max":
            return min(machine, int(words[0]))
    return machine


def _shm_bytes(shm: Path) -> int:
    return shutil.disk_usage(shm).free if shm.is_dir() else 0


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
