"""What a server costs: processor seconds and memory of a process with all its descendants, from /proc."""

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(roots: list[int]) -> list[int]:
    """Return these processes and all that descend from them, ended ones not yet waited for included."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, wanted = [], list(roots)
    while wanted:
        pid = wanted.pop()
        found.append(pid)
        wanted += children.get(pid, [])
    return found


def cpu_seconds(roots: list[int]) -> float:
    """Return user and system time, that of children already waited for included."""
    return sum(sum(map(int, fields[11:15])) for pid in tree(roots) if (fields := _stat(pid))) / _TICK


def pss_bytes(roots: list[int]) -> int:
    """Return the proportional set size: shared pages count once in all."""
    total = 0
    for pid in tree(roots):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the command, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
