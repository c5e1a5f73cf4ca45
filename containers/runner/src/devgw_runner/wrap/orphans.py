"""What a launcher that was killed leaves behind: adopted by this process, and ended as the launcher would have."""

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from devgw_runner.parallel.launcher import SHUTDOWN_SECONDS

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
LOOK_SECONDS = 0.05


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(shutdown_seconds: float = SHUTDOWN_SECONDS) -> None:
    """Send every child SIGTERM, wait, and kill what is left. For a process that needs none of its children any more."""
    _send(signal.SIGTERM)
    deadline = time.monotonic() + shutdown_seconds
    while _children() and time.monotonic() < deadline:
        _reap()
        time.sleep(LOOK_SECONDS)
    while _children():  # killed processes leave their own children, which are ours then
        _send(signal.SIGKILL)
        _reap()
        time.sleep(LOOK_SECONDS)


def _send(number: int) -> None:
    for child in _children():
        os.kill(child, number)  # not reaped yet: the number is still its own


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def _reap() -> None:
    for child in _children():
        os.waitpid(child, os.WNOHANG)
