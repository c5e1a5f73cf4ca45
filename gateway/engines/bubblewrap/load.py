"""What an environment's processes use, read from the cgroups that limit them."""

from pathlib import Path

from gateway.engines.interface import Load


def load_of(groups: tuple[Path, ...]) -> Load | None:
    """Add up the groups of one environment (v2: one, v1: one for each controller); None where something is missing."""
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    for group in groups:
        try:
            cpu_seconds = _cpu_seconds(group) if cpu_seconds is None else cpu_seconds
            memory_bytes = _memory_bytes(group) if memory_bytes is None else memory_bytes
        except (OSError, ValueError, KeyError):  # it has just ended
            return None
    return None if cpu_seconds is None or memory_bytes is None else Load(cpu_seconds, memory_bytes)


def _cpu_seconds(group: Path) -> float | None:
    if (account := group / "cpuacct.usage").exists():
        return int(account.read_text()) / 1e9
    if (account := group / "cpu.stat").exists() and "usage_usec" in (found := _counters(account)):
        return found["usage_usec"] / 1e6
    return None


def _memory_bytes(group: Path) -> int | None:
    """Return what is charged less the files that can be given up at once, as `docker stats` counts."""
    for used, cache in (("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")):
        if (group / used).exists():
            charged, idle = int((group / used).read_text()), _counters(group / "memory.stat")[cache]
            return max(0, charged - idle)
    return None


def _counters(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())}
