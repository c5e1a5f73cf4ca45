"""Whether the kernel killed a process at a memory limit: read from its own account in the cgroup, v1 or v2.

An engine may say so itself; Podman does not while a container lives on.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_COUNTERS = ("memory.events", "memory.oom_control")
"""Of v2 and v1 (kernel's cgroup-v2.rst and cgroup-v1/memory.rst); both have a line `oom_kill`."""


def count_out_of_memory(groups: Iterable[Path]) -> int:
    """Return how many processes the kernel has killed at the memory limit."""
    for group in groups:
        for name in _COUNTERS:
            with suppress(OSError):  # of the other version, or the environment has just ended
                values = dict(line.split()[:2] for line in (group / name).read_text().splitlines())
                return int(values.get("oom_kill", 0))
    return 0


def memory_groups(process: int, mark: str, mount: Path = _MOUNT, proc: Path = Path("/proc")) -> tuple[Path, ...]:
    """Return where the kernel counts for a process of this host, if the path of its cgroup holds a mark.

    Without the mark, such as a container's id, the process has ended and its number may be somebody else's.
    """
    try:
        lines = (proc / str(process) / "cgroup").read_text().splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if mark in path and (not controllers or "memory" in controllers.split(",")):
            found.append(mount / (controllers and "memory") / path.lstrip("/"))
    return tuple(found)


def in_words(memory_bytes: int) -> str:
    """Say it to whoever asks what became of an environment."""
    return f"out of memory: the kernel killed a process at the limit of {memory_bytes / 2**30:.3g} GiB"
