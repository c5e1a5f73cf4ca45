"""Processes that a test starts: they get signals as on any machine, and none outlives the test."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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


def end_those_with(variable: str, seconds: float = 5.0) -> list[str]:
    """Kill the processes that were started with a variable (`NAME=value`) and stay; return their command lines.

    Whoever was just told to end has a moment for it. Nobody hides from this by leaving parent or session.
    """
    deadline = time.monotonic() + seconds
    while (left := _started_with(variable)) and time.monotonic() < deadline:
        time.sleep(0.05)
    words = list(left.values())
    while left:  # again, for one that forked meanwhile
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        left = _started_with(variable)
    return words


def _started_with(variable: str) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if variable.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    found[int(entry.name)] = b" ".join(words).decode(errors="replace").strip()
    return found
