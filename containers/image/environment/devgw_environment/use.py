"""How much the user's processes work: CPU time between two looks, without this package's own processes and sshd."""

import contextlib
import os
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
OWN = ("devgw_environment", "jupyterlab", "sshd")


class CpuMeter:
    """Counts a process's time and that of its ended children, so that short commands of a script count too."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self.proc = proc
        self.seconds = self.read()
        self.at = time.monotonic()

    def percent(self) -> float:
        """Per cent of one CPU that was used since the last look."""
        before, then = self.seconds, self.at
        self.seconds, self.at = self.read(), time.monotonic()
        used = sum(max(0.0, seconds - before.get(process, 0.0)) for process, seconds in self.seconds.items())
        return 100 * used / max(self.at - then, 0.001)

    def read(self) -> dict[tuple[int, str], float]:
        """CPU seconds by process; the start time tells apart two that had the same pid."""
        found = {}
        for entry in self.proc.iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    if not is_own((entry / "cmdline").read_bytes()):
                        fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                        found[int(entry.name), fields[19]] = sum(map(int, fields[11:15])) / TICKS_PER_SECOND
        return found


def is_own(cmdline: bytes) -> bool:
    """Whether a process belongs to the environment itself rather than to its user; a kernel is the user's."""
    words = cmdline.decode(errors="replace").split("\0")
    return any(name in word for word in words[:6] for name in OWN)
