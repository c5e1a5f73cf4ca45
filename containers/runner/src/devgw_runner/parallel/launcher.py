"""The launcher that started this process (ours or a plain torchrun), and what to do when it was killed.

A launcher that is asked to end ends its processes itself. One that is killed cannot: they would wait for ever, and
hold their devices.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from devgw_runner.errors import SIGNAL_EXIT_BASE
from devgw_runner.jobs.process import is_same_process, start_ticks

VARIABLE = "DEVGW_LAUNCHER"  # set by our launcher: its process id, its start time, and where they hold
SHUTDOWN_SECONDS = 25.0
"""From SIGTERM to the end of what does not end. Below the 30 s that a container is usually granted."""
LOOK_SECONDS = 1.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
OF_A_RANK = b"TORCHELASTIC_RUN_ID="


@dataclass(frozen=True)
class Launcher:
    """One process: a number alone may be used again."""

    pid: int
    ticks: int

    @property
    def is_alive(self) -> bool:
        return is_same_process(self.pid, self.ticks)


def own_description() -> str:
    """Return the value of VARIABLE for processes that this one starts."""
    return f"{os.getpid()}:{start_ticks(os.getpid())}:{_pid_namespace()}"


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def find_launcher() -> Launcher | None:
    """Return who started this process among others; None if it was not started so.

    There may be a shell, or any other command, between the two: the launcher is the nearest ancestor which is not
    itself one of the processes started.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    pid, ticks, namespace = [*os.environ.get(VARIABLE, "").split(":", 2), "", ""][:3]
    if namespace == _pid_namespace():  # also where it is dead already
        return Launcher(int(pid), int(ticks))
    ancestor = os.getppid()
    while ancestor > 1 and _is_rank(ancestor):
        ancestor = _parent(ancestor)
    began = start_ticks(ancestor)
    # The first process of a container takes all others with it.
    return Launcher(ancestor, began) if ancestor > 1 and began is not None else None


def describe_launcher() -> str:
    """Return what no other launcher has, on this machine or another; empty where nobody started several processes."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ""
    launcher = find_launcher() or Launcher(1, start_ticks(1) or 0)  # the first process of a container
    return f"{BOOT_ID.read_text(encoding='ascii').strip()} {_pid_namespace()} {launcher.pid}:{launcher.ticks}"


def _is_rank(pid: int) -> bool:
    try:
        return any(line.startswith(OF_A_RANK) for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:  # another user's
        return False


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 1
    return int(stat.rpartition(")")[2].split()[1])


@contextmanager
def ending_with(
    launcher: Launcher | None, send: Callable[[int], None], shutdown_seconds: float = SHUTDOWN_SECONDS
) -> Iterator[None]:
    """While the block runs, do what a launcher that is killed could not: `send` SIGTERM, and later end what still runs.

    Every process of the launcher hears it, so that they save a checkpoint together.
    """
    if launcher is None:
        yield
        return
    over = threading.Event()
    arguments = (launcher, send, over, shutdown_seconds)
    threading.Thread(target=_watch, args=arguments, name="launcher-watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(launcher: Launcher, send: Callable[[int], None], over: threading.Event, shutdown_seconds: float) -> None:
    while launcher.is_alive:
        if over.wait(LOOK_SECONDS):
            return
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with suppress(OSError):  # where it went may be gone, too
            print(f"devgw-run: note: the launcher, process {launcher.pid}, is gone: as on SIGTERM", file=sys.stderr)
    send(signal.SIGTERM)
    if not over.wait(shutdown_seconds):
        os._exit(SIGNAL_EXIT_BASE + signal.SIGTERM)
