"""A supervisor whose workers do nothing but report: run as a process of its own, since signals are what it is about.

A worker ends with the number in the file `exit-INDEX`, where there is one, before it serves. Each notes what it is and
hears in `lines`.
"""

import os
import signal
import sys
import time
from pathlib import Path

from gateway.model import EnvironmentRef
from gateway.process.supervisor import Supervisor
from gateway.process.systemd import ServiceManager
from gateway.process.worker import WorkerLink


def main() -> int:
    """Supervise `sys.argv[2]` workers in the directory `sys.argv[1]`."""
    root = Path(sys.argv[1])
    outcome = Supervisor(int(sys.argv[2]), 0, ServiceManager()).run()
    return _work(root, outcome) if isinstance(outcome, WorkerLink) else outcome


def _work(root: Path, link: WorkerLink) -> int:
    _note(root, f"start {link.index} {os.getpid()}")
    code = root / f"exit-{link.index}"
    if code.exists():
        return int(code.read_text())
    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    _note(root, f"serve {link.index} {os.getpid()}")
    link.ready()
    ends = 0
    while True:
        heard = signal.sigtimedwait(signals, link.watchdog_seconds / 4)
        link.beat()
        _note_lines(root, link)
        if heard is None:
            continue
        _note(root, f"{signal.Signals(heard.si_signo).name} {link.index} {os.getpid()}")
        if heard.si_signo == signal.SIGHUP:
            link.reloading()
            link.ready()
        elif heard.si_signo == signal.SIGUSR1:
            link.tell(EnvironmentRef.parse("alice"), "a line")
        else:
            link.stopping()
            ends += 1
            if ends == 2 or not (root / "drain").exists():
                code = root / f"end-{link.index}"
                return int(code.read_text()) if code.exists() else 0


def _note_lines(root: Path, link: WorkerLink) -> None:
    try:
        message = link.link.recv(4096)
    except BlockingIOError:
        return
    _note(root, f"heard {link.index} {message.decode()}" if message else f"orphaned {link.index} {os.getpid()}")
    if not message:
        time.sleep(link.watchdog_seconds)
        sys.exit(1)


def _note(root: Path, line: str) -> None:
    with (root / "lines").open("a") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
