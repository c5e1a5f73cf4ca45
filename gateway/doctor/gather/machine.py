"""Facts of the machine: disks, memory, kernel ceilings, clock. `root` is `/`, or a tree that stands for it."""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from gateway.doctor.facts import HostFacts, Space
from gateway.doctor.finding import Unasked

_STA_UNSYNC = 0x40  # linux/timex.h
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class _Timex(ctypes.Structure):
    """The head of `struct timex` (linux/timex.h); what follows is room that the kernel writes into."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def machine_facts(places: Iterable[tuple[str, Path]], root: Path = Path("/")) -> HostFacts:
    """Look at the disks under the named places, at /proc and at the kernel's clock."""
    return HostFacts(
        spaces=tuple(_space(of, place) for of, place in places),
        memory_bytes=_memory_bytes(root / "proc/meminfo"),
        inotify_watches=_number(root / "proc/sys/fs/inotify/max_user_watches"),
        inotify_instances=_number(root / "proc/sys/fs/inotify/max_user_instances"),
        pid_max=_number(root / "proc/sys/kernel/pid_max"),
        clock_is_synchronised=clock_is_synchronised(),
    )


def clock_is_synchronised() -> bool | Unasked:
    """Read the kernel's clock state with adjtimex(2), which changes nothing when `modes` is 0."""
    try:
        state = _Timex()
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))
    except (OSError, AttributeError) as exc:
        return Unasked(f"adjtimex: {exc}")
    if answer < 0:
        return Unasked(f"adjtimex: {os.strerror(ctypes.get_errno())}")
    return answer != _TIME_ERROR and not state.status & _STA_UNSYNC


def _space(of: str, place: Path) -> Space:
    """Measure the file system on which a place lies, or will lie once it is made."""
    there = next(path for path in (place, *place.parents) if path.exists())
    found = os.statvfs(there)
    inodes = 100 * found.f_favail / found.f_files if found.f_files else 100.0
    return Space(of, place, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, inodes)


def _memory_bytes(file: Path) -> int | Unasked:
    try:
        lines = dict(line.partition(":")[::2] for line in file.read_text().splitlines())
        return int(lines["MemTotal"].split()[0]) * 1024
    except (OSError, KeyError, ValueError) as exc:
        return Unasked(f"{file}: {exc}")


def _number(file: Path) -> int | Unasked:
    try:
        return int(file.read_text())
    except (OSError, ValueError) as exc:
        return Unasked(f"{file}: {exc}")
