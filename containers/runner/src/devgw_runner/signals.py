"""Turn signals into requests that the loop reads: stop with a checkpoint, or checkpoint and go on.

What is saved, and when, is left to the loop.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from devgw_runner.errors import SIGNAL_EXIT_BASE, StopRequested

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CHECKPOINT_SIGNAL = signal.SIGUSR1


class Signals:
    """The requests that signals left behind. Only the process that made it listens."""

    def __init__(self) -> None:
        self.stop_signal = 0
        self._checkpoint_wanted = False
        self._interruptible = False
        self._owner = os.getpid()

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
            for number, handler in before.items():
                signal.signal(number, handler)

    def request_stop(self, number: int) -> None:
        """Ask for a stop as if signal `number` had come; the output's end does this (lost connection)."""
        self.stop_signal = self.stop_signal or number

    def take_checkpoint_request(self) -> bool:
        """Say whether a checkpoint was asked for since the last call."""
        wanted, self._checkpoint_wanted = self._checkpoint_wanted, False
        return wanted

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a stop signal end the block at once by StopRequested: for compilations that take minutes."""
        if self.stop_signal:
            raise StopRequested(self.stop_signal)
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked loader process inherits handlers but does not own them
            return
        if number == signal.SIGINT and self.stop_signal == signal.SIGINT:
            os._exit(SIGNAL_EXIT_BASE + number)  # the second Ctrl-C means now, without the checkpoint
        self.request_stop(number)
        if self._interruptible:
            self._interruptible = False
            raise StopRequested(number)

    def _on_checkpoint(self, _number: int, _frame: FrameType | None) -> None:
        if os.getpid() == self._owner:
            self._checkpoint_wanted = True


def shield_loader_process(_worker_id: int) -> None:
    """Make a loader process ignore the run's signals; the main process ends it."""
    for number in (*STOP_SIGNALS, CHECKPOINT_SIGNAL):
        signal.signal(number, signal.SIG_IGN)
