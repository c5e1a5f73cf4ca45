"""A supervisor whose workers do nothing but report: run as a process of its own, since signals are what it is about.

A worker ends with the number in the file `exit-INDEX`, where there is one, before it serves. Each notes what it is and
hears in `lines`.
"""

import os
import signal
import sys
import time
from pathlib import Path

from gateway.app.seat import Seat
from gateway.app.service_manager import ServiceManager
from gateway.app.supervisor import Supervisor
from gateway.model import EnvironmentRef


def main() -> int:
    """Supervise `sys.argv[2]` workers in the directory `sys.argv[1]`."""
    root = Path(sys.argv[1])
    outcome = Supervisor(int(sys.argv[2]), 0, ServiceManager()).run()
    return _work(root, outcome) if isinstance(outcome, Seat) else outcome


def _work(root: Path, seat: Seat) -> int:
    _note(root, f"start {seat.index} {os.getpid()}")
    code = root / f"exit-{seat.index}"
    if code.exists():
        return int(code.read_text())
    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    _note(root, f"serve {seat.index} {os.getpid()}")
    seat.ready()
    ends = 0
    while True:
        heard = signal.sigtimedwait(signals, seat.watchdog_seconds / 4)
        seat.beat()
        _note_lines(root, seat)
        if heard is None:
            continue
        _note(root, f"{signal.Signals(heard.si_signo).name} {seat.index} {os.getpid()}")
        if heard.si_signo == signal.SIGHUP:
            seat.reloading()
            seat.ready()
        elif heard.si_signo == signal.SIGUSR1:
            seat.tell(EnvironmentRef.parse("alice"), "a line")
        else:
            seat.stopping()
            ends += 1
            if ends == 2 or not (root / "drain").exists():
                code = root / f"end-{seat.index}"
                return int(code.read_text()) if code.exists() else 0


def _note_lines(root: Path, seat: Seat) -> None:
    try:
        message = seat.link.recv(4096)
    except BlockingIOError:
        return
    _note(root, f"heard {seat.index} {message.decode()}" if message else f"orphaned {seat.index} {os.getpid()}")
    if not message:
        time.sleep(seat.watchdog_seconds)
        sys.exit(1)


def _note(root: Path, line: str) -> None:
    with (root / "lines").open("a") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
