"""The processes of an environment: adopt the orphaned, reap the dead, stop all that is left.

Uses the kernel's child-subreaper so that it works below any pid 1, and never signals a process it did not give rise to.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections import defaultdict
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none escapes a stop."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def reap() -> dict[int, int]:
    """Collect every child that has ended; returns exit codes by pid (negative: the signal that ended it)."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def read_parent(stat: str) -> int:
    """Parent pid out of /proc/<pid>/stat, whose second field may hold spaces and brackets (proc(5))."""
    return int(stat.rpartition(")")[2].split()[1])


def list_descendants(root_pid: int) -> list[int]:
    """Pids of all processes below `root_pid`, nearest first."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                children[read_parent((entry / "stat").read_text(encoding="utf-8", errors="replace"))].append(
                    int(entry.name)
                )
    found: list[int] = []
    waiting = [root_pid]
    while waiting:
        below = children[waiting.pop(0)]
        found.extend(below)
        waiting.extend(below)
    return found


def signal_each(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def stop_descendants(grace_seconds: float) -> int:
    """SIGTERM to all below this process, SIGKILL to what is left after the grace; returns how many were killed."""
    signal_each(list_descendants(os.getpid()), signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline:
        reap()
        if not list_descendants(os.getpid()):
            return 0
        time.sleep(0.05)
    killed: set[int] = set()
    while left := list_descendants(os.getpid()):
        signal_each(left, signal.SIGKILL)
        killed.update(left)
        time.sleep(0.02)
        reap()
        if time.monotonic() > deadline + 1:
            break
    return len(killed)
