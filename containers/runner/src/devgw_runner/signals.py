"""Turn signals into requests that the loop reads: stop with a checkpoint, or checkpoint and go on.

What is saved, and when, is left to the loop.
"""

import mmap
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from devgw_runner.errors import SIGNAL_EXIT_BASE, StopRequested

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CHECKPOINT_SIGNAL = signal.SIGUSR1
# After a stop signal a batch may take this long to come; a container has 30 s from SIGTERM to SIGKILL.
BATCH_GRACE_SECONDS = 5.0


class Signals:
    """The requests that signals left behind. Only the process that made it listens.

    With `owns_process` a second Ctrl-C ends the process at once. A notebook's kernel is not the run's to end:
    there the second one raises KeyboardInterrupt.
    """

    def __init__(self, *, owns_process: bool = True) -> None:
        self.stop_signal = 0
        self._checkpoint_wanted = False
        self._interruptible = False
        self._owns_process = owns_process
        self._owner = os.getpid()
        self._grace_seconds = 0.0
        self._grace: threading.Timer | None = None
        self._is_reminder = False
        self._handing_back = threading.Lock()
        # Shared with forked children: while it is 0 they ignore our signals, from then on they end by them.
        self._is_over = mmap.mmap(-1, 1)

    @contextmanager
    def installed(self) -> Iterator["Signals"]:
        """Take over SIGTERM, SIGINT, SIGHUP (stop) and SIGUSR1 (checkpoint now) while the block runs."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # Python delivers signals to the main thread only
            return
        before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, CHECKPOINT_SIGNAL)}
        for number in STOP_SIGNALS:
            # A detached run was told to ignore SIGHUP, and stays so.
            if before[number] != signal.SIG_IGN:
                signal.signal(number, self._on_stop)
        signal.signal(CHECKPOINT_SIGNAL, self._on_checkpoint)
        try:
            yield self
        finally:
            if os.getpid() == self._owner:
                with self._handing_back:
                    self._is_over[0] = 1
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def send(self, number: int) -> None:
        """Send the main thread signal `number`, from any thread; nothing once the run is over.

        Then the signal would find the handlers that were there before, and end a process that is closing.
        """
        with self._handing_back:
            if not self._is_over[0]:
                signal.pthread_kill(threading.main_thread().ident or 0, number)

    def request_stop(self, number: int) -> None:
        """Ask for a stop as if signal `number` had come; the output's end does this (lost connection)."""
        self.stop_signal = self.stop_signal or number

    def take_checkpoint_request(self) -> bool:
        """Say whether a checkpoint was asked for since the last call."""
        wanted, self._checkpoint_wanted = self._checkpoint_wanted, False
        return wanted

    @contextmanager
    def interruptible(self, grace_seconds: float = 0.0) -> Iterator[None]:
        """Let a stop signal end the block by StopRequested: for compilations, and for batches that never come.

        With `grace_seconds` the block has that long to end by itself after the signal.
        """
        if self.stop_signal and not grace_seconds:
            raise StopRequested(self.stop_signal)
        self._interruptible, self._grace_seconds, self._grace = True, grace_seconds, None
        if self.stop_signal:
            self._begin_grace(self.stop_signal)
        try:
            yield
        finally:
            self._interruptible = False
            if self._grace is not None:
                self._grace.cancel()

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            self._in_child(number)
            return
        is_reminder, self._is_reminder = self._is_reminder, False
        if number == signal.SIGINT and self.stop_signal == signal.SIGINT and not is_reminder:
            self._stop_at_once(number)
        self.request_stop(number)
        if not self._interruptible:
            return
        if self._grace_seconds and not is_reminder:
            self._begin_grace(number)
            return
        self._interruptible = False
        raise StopRequested(self.stop_signal)

    def _stop_at_once(self, number: int) -> None:
        """Answer the second Ctrl-C, which means now, without the checkpoint."""
        if self._owns_process:
            os._exit(SIGNAL_EXIT_BASE + number)
        raise KeyboardInterrupt

    def _begin_grace(self, number: int) -> None:
        if self._grace is None:
            self._grace = threading.Timer(self._grace_seconds, self._remind, (number,))
            self._grace.daemon = True
            self._grace.start()

    def _remind(self, number: int) -> None:
        """Send the main thread the signal again when the grace is over: only a handler can interrupt what runs."""
        self._is_reminder = True
        self.send(number)

    def _in_child(self, number: int) -> None:
        """Ignore the signal in a forked process, which inherits the handler but not the run, until the run is over."""
        if self._is_over[0] or os.getppid() != self._owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _on_checkpoint(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() == self._owner:
            self._checkpoint_wanted = True
        else:
            self._in_child(number)


def shield_loader_process(_worker_id: int) -> None:
    """Make a loader process ignore the run's signals; `loader_processes` ends it."""
    for number in (*STOP_SIGNALS, CHECKPOINT_SIGNAL):
        signal.signal(number, signal.SIG_IGN)
