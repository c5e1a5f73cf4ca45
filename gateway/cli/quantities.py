"""Reads limits from flags and fills in what was not said from the settings and the host."""

import math
import os

from gateway.config import EnvironmentSettings, parse_size
from gateway.errors import UsageError
from gateway.model import Limits

MEMORY_BYTES_MIN = 64 * 2**20


def limits_from(
    defaults: EnvironmentSettings,
    memory: str | None,
    cpus: float | None,
    disk: str | None = None,
    largest_disk: int | None = None,
    most_cpus: float | None = None,
) -> Limits:
    """Return the limits of a new environment; /dev/shm gets half of the memory, processors are at most `most_cpus`.

    Raises:
        UsageError: `memory.bad`, `cpus.bad` or `disk.bad`.
    """
    disk_bytes = parse_disk(disk, "--disk") if disk is not None else largest_disk or 0
    memory_bytes = defaults.memory if memory is None else parse_memory(memory)
    wanted = defaults.cpus if cpus is None else require_cpus(cpus)
    most = host_cpus() if most_cpus is None else most_cpus
    return Limits(memory_bytes, min(wanted, most), defaults.pids, memory_bytes // 2, disk_bytes)


def parse_memory(text: str) -> int:
    """Return bytes. Raises: UsageError `memory.bad`."""
    try:
        memory_bytes = parse_size(text)
    except ValueError as exc:
        raise UsageError("memory.bad", f"--memory: {exc}", "for example --memory 16GiB") from exc
    if memory_bytes < MEMORY_BYTES_MIN:
        raise UsageError(
            "memory.bad",
            f"--memory: {text} is too little to start an environment",
            f"at least {size_text(MEMORY_BYTES_MIN)}, for example --memory 16GiB",
        )
    return memory_bytes


def parse_disk(text: str, option: str) -> int:
    """Return bytes; a number without a unit is refused. Raises: UsageError `disk.bad`."""
    from gateway.environments.disk_image import whole_blocks
    from gateway.environments.disk_limit import LEAST_BYTES
    from policies.quantities import parse_size as parse_with_unit

    try:
        disk_bytes = whole_blocks(parse_with_unit(text))
    except ValueError as exc:
        raise UsageError("disk.bad", f"{option}: {exc}", f"for example {option} 50GiB") from exc
    if disk_bytes < LEAST_BYTES:
        message = f"{option}: {text} is too little for a disk"
        raise UsageError("disk.bad", message, f"at least {size_text(LEAST_BYTES)}, for example {option} 50GiB")
    return disk_bytes


def require_cpus(cpus: float) -> float:
    """Return a usable number of CPUs. Raises: UsageError `cpus.bad`."""
    if not math.isfinite(cpus) or cpus < 0.01:
        raise UsageError("cpus.bad", f"--cpus: {cpus:g} is not a number of CPUs", "for example --cpus 4 or --cpus 0.5")
    return cpus


def host_cpus() -> float:
    """Return how many CPUs this host has."""
    return float(os.cpu_count() or 1)


def size_text(size_bytes: int) -> str:
    """Write a size as people write it: `16GiB`, `1.5GiB`."""
    from policies.quantities import show_about

    return show_about(size_bytes)


def age_text(seconds: float) -> str:
    """Write how long ago something was: `5m`, `3h`, `12d`."""
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= factor:
            return f"{int(seconds // factor)}{unit}"
    return f"{max(0, int(seconds))}s"
