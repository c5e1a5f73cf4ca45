"""Waiting for signals and sockets together, without blocking signals (a blocked one stays blocked in every child)."""

import os
import select
import signal
import socket


class SignalWaiter:
    """Collects the signals it was told of; `wait` returns them, or returns early when a socket is readable."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self.read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda _number, _frame: None)

    def wait(self, timeout_seconds: float, *sockets: socket.socket) -> tuple[set[int], list[socket.socket]]:
        """Signals received since the last call and sockets that are readable; both may be empty after the timeout."""
        readable, _, _ = select.select([self.read_end, *sockets], [], [], timeout_seconds)
        received = set(os.read(self.read_end, 4096)) if self.read_end in readable else set()
        return received, [ready for ready in readable if ready != self.read_end]
