"""Keeps worker processes: starts them, starts another where one ends, passes signals on, tells systemd how all stand.

It knows nothing of SSH, store or engine and runs no thread, so that there is little in it to break (ADR 0011).
"""

import logging
import os
import selectors
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

from gateway.config import SshSettings
from gateway.process.systemd import ServiceManager
from gateway.process.worker import MESSAGE_BYTES, WorkerLink
from gateway.ssh.listening import explained

HANG_SECONDS = 60.0
"""Silence after which a worker is taken for hung, where systemd names no other time."""
_STEADY_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 30.0
_TICK_SECONDS = 1.0
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_HEARD = (*_PASSED_ON, signal.SIGCHLD)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Worker:
    """A process under way. `heard_at` is None until it serves; a `settled` one has no start or reload before it."""

    index: int
    pid: int
    link: socket.socket
    started_at: float
    heard_at: float | None = None
    settled: bool = False
    is_draining: bool = False


@dataclass(slots=True)
class Place:
    """What is remembered of a worker's predecessors: how often in a row they ended soon, and when another may start."""

    start_at: float = 0.0
    quick_ends: int = 0


class Supervisor:
    """The parent. `run` returns in the parent at the end, and in each worker at its beginning, as fork(2) does."""

    def __init__(
        self, count: int, port: int, manager: ServiceManager, *, reserved: socket.socket | None = None
    ) -> None:
        self._port = port
        self._manager = manager
        self._reserved = reserved
        self._hang_seconds = manager.watchdog_seconds or HANG_SECONDS
        self._places = {index: Place() for index in range(count)}
        self._workers: dict[int, Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._signals: list[int] = []
        self._beat_at = 0.0
        self._is_announced = False
        self._is_stopping = False
        self._worst = 0
        self.has_served = False
        """Whether the first worker has ever begun: before that, its failure is the gateway's."""

    def run(self) -> int | WorkerLink:
        """Supervise until told to stop. Returns the worst exit code, and in each new process the link it has."""
        self._listen_to_signals()
        try:
            while self._workers or not self._is_stopping:
                link = self._start_due()
                if link is not None:
                    return link
                self._wait()
                self._pass_on_signals()
                self._reap()
                self._end_hung()
                self._speak()
        finally:
            self._let_go()
        return self._worst

    # Starting

    def _start_due(self) -> WorkerLink | None:
        for index, place in self._places.items():
            is_due = index not in self._workers and time.monotonic() >= place.start_at
            if is_due and not self._is_stopping and (index == 0 or self.has_served):
                link = self._fork(index)
                if link is not None:
                    return link
        return None

    def _fork(self, index: int) -> WorkerLink | None:
        """Start a worker; return its link in the new process and None in this one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setblocking(False)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        try:
            pid = os.fork()
            if pid == 0:
                os.setpgid(0, 0)  # Ctrl-C at a terminal is the parent's to pass on, once
                ours.close()
                self._let_go()
                return WorkerLink(index, theirs, self._port, self._hang_seconds, joins=self.has_served)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._workers[index] = worker = Worker(index, pid, ours, time.monotonic())
        self._selector.register(ours, selectors.EVENT_READ, worker)
        _log.info("worker %d is process %d", index, pid)
        return None

    def _let_go(self) -> None:
        """Leave signals and descriptors as they were found: at the end, and in a process that has become a worker."""
        signal.set_wakeup_fd(-1)
        for number in _HEARD:
            signal.signal(number, signal.SIG_DFL)
        for worker in self._workers.values():
            worker.link.close()
        self._selector.close()
        for end in (self._wake_in, self._wake_out, self._reserved):
            if end is not None:
                end.close()

    # Signals

    def _listen_to_signals(self) -> None:
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        for number in _HEARD:
            signal.signal(number, lambda heard, _frame: self._signals.append(heard))
        self._selector.register(self._wake_out, selectors.EVENT_READ)

    def _pass_on_signals(self) -> None:
        heard, self._signals = self._signals, []
        for number in heard:
            if number == signal.SIGHUP:
                self._reload()
            elif number in _PASSED_ON:
                self._stop()

    def _reload(self) -> None:
        """Have all who serve take the policy anew; one that is starting reads it anyway."""
        self._manager.reloading()
        self._is_announced = False
        for worker in self._workers.values():
            if worker.heard_at is not None:
                worker.settled = False
                os.kill(worker.pid, signal.SIGHUP)

    def _stop(self) -> None:
        """Have all drain; the second time, end at once."""
        if not self._is_stopping:
            self._is_stopping = True
            self._manager.stopping()
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGTERM)

    # What workers say and how they end

    def _wait(self) -> None:
        for key, _ in self._selector.select(_TICK_SECONDS):
            if key.data is None:
                self._wake_out.recv(MESSAGE_BYTES)
            else:
                self._hear(key.data)

    def _hear(self, worker: Worker) -> None:
        try:
            message = worker.link.recv(MESSAGE_BYTES)
        except OSError:
            message = b""
        if not message:  # it is ending, SIGCHLD says how
            self._selector.unregister(worker.link)
        elif message.startswith(b"LINE="):
            self._spread(worker, message)
        else:
            self._note(worker, message)

    def _note(self, worker: Worker, message: bytes) -> None:
        worker.heard_at = time.monotonic()
        if message == b"READY=1":
            worker.settled = self.has_served = True
        elif message == b"STOPPING=1":
            worker.is_draining = True

    def _spread(self, origin: Worker, message: bytes) -> None:
        for worker in self._workers.values():
            if worker is not origin:
                with suppress(OSError):
                    worker.link.send(message)

    def _reap(self) -> None:
        for worker in list(self._workers.values()):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._on_exit(worker, os.waitstatus_to_exitcode(status))

    def _on_exit(self, worker: Worker, code: int) -> None:
        del self._workers[worker.index]
        with suppress(KeyError):
            self._selector.unregister(worker.link)
        worker.link.close()
        if self._is_stopping or not self.has_served:
            is_as_told = self._is_stopping and code == -signal.SIGTERM  # it was starting, or at its very end
            self._worst = max(self._worst, 0 if is_as_told else exit_status(code))
            self._is_stopping = True
            return
        self._plan_successor(worker, f"was killed by signal {-code}" if code < 0 else f"ended with {code}")

    def _plan_successor(self, worker: Worker, how: str) -> None:
        """Start another at once, but one whose predecessors ended soon after their start waits longer each time."""
        now, place = time.monotonic(), self._places[worker.index]
        place.quick_ends = place.quick_ends + 1 if now - worker.started_at < _STEADY_SECONDS else 0
        pause = min(2.0 ** (place.quick_ends - 2), _LONGEST_PAUSE_SECONDS) if place.quick_ends > 1 else 0.0
        place.start_at = now + pause
        when = f"in {pause:.0f} s, after {place.quick_ends} that did not last" if pause else "now"
        _log.error("worker %d (process %d) %s; another starts %s", worker.index, worker.pid, how, when)

    def _end_hung(self) -> None:
        """Kill a worker whose event loop has stood still; its successor serves within seconds."""
        for worker in self._workers.values():
            silent = 0.0 if worker.heard_at is None else time.monotonic() - worker.heard_at
            if silent > self._hang_seconds and not (worker.is_draining or self._is_stopping):
                _log.error("worker %d (process %d) has hung for %.0f s: killed", worker.index, worker.pid, silent)
                os.kill(worker.pid, signal.SIGKILL)
                worker.heard_at = None

    def _speak(self) -> None:
        """Tell systemd that all serve, once after a start or reload, and that this loop turns."""
        are_settled = len(self._workers) > 0 and all(worker.settled for worker in self._workers.values())
        if are_settled and not self._is_announced and self._is_begun():
            self._is_announced = True
            self._manager.ready()
        if self._manager.watchdog_seconds and time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + self._manager.watchdog_seconds / 2
            self._manager.beat()

    def _is_begun(self) -> bool:
        """Say whether each place has had its first worker; one that waits for a successor holds nobody up."""
        return all(index in self._workers or place.quick_ends for index, place in self._places.items())


def exit_status(code: int) -> int:
    """Return what a shell would say of a process: a signal is 128 and its number."""
    return 128 - code if code < 0 else code


def reserve(settings: SshSettings) -> tuple[socket.socket, int]:
    """Keep the port for the workers of this gateway; return what keeps it, and the port.

    The socket never listens, so it gets no connection. SO_REUSEPORT alone would let two gateways of one account share
    a port without a word: so the port is first taken for oneself.

    Raises:
        ConflictError: where another holds it.
        ConfigError: where it cannot be had at all.
    """
    address = settings.listen_address or "0.0.0.0"  # noqa: S104 - only to keep the number
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with explained(address, settings.port):
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((address, settings.port))
            port = int(alone.getsockname()[1])
        kept = socket.socket(family, socket.SOCK_STREAM)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            kept.setsockopt(socket.SOL_SOCKET, option, 1)
        kept.bind((address, port))
    return kept, port
