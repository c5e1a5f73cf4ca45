"""A process known for certain, by pid, start time and boot: another one that gets its pid is not taken for it."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this boot. `started` is in clock ticks since then (proc(5), field 22 of stat)."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Take down a process that is alive now."""
        started = _started(pid)
        return None if started is None else cls(pid, started, boot_id())

    @classmethod
    def own(cls) -> "Process":
        """Take down this process."""
        found = cls.of(os.getpid())
        if found is None:
            raise OSError("/proc does not show this process")
        return found

    def is_alive(self) -> bool:
        """Say whether it still runs; a zombie does not."""
        return self.boot == boot_id() and _started(self.pid) == self.started

    def send(self, number: signal.Signals) -> bool:
        """Signal it and nobody else; False when it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.is_alive():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for its end; False when it still runs then."""
        deadline = time.monotonic() + timeout_seconds
        while self.is_alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True


def boot_id() -> str:
    """Return what names this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])
