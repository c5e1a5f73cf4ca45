"""Processes that a test starts: they get signals as on any machine, and none outlives the test."""

import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LEFT_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def give_children_their_signals() -> None:
    """Let the processes that tests start hear every signal, also where `nohup` or a shell's `&` had them ignored.

    An ignored signal stays ignored in a child, a handled one does not (POSIX exec). So a handler that does nothing
    takes the place of `ignore`: this process goes on hearing nothing, as whoever started it wished.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEFT_IGNORED)
    for number in _LEFT_IGNORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@contextmanager
def running(command: list[Any], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """Run a program beside the block; one that has not ended with it is killed, so that a failure is not a hang."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def is_readable(descriptor: int, seconds: float) -> bool:
    """Wait a while for something to read, or the end. Unlike select(2) it knows descriptors from 1024 on."""
    arrivals = select.poll()
    arrivals.register(descriptor, select.POLLIN)
    return bool(arrivals.poll(seconds * 1000))
