"""Ways to drive the real OpenSSH clients that several tests share."""

import os
import pty
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from tests.support.processes import is_readable
from tests.support.ssh_gateway import TestGateway

T = TypeVar("T")


def poll(state: Callable[[], T], what: str, timeout_seconds: float = 10) -> T:
    """Return the first true value of a state, or fail at the deadline."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = state()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come about within {timeout_seconds} s"
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    """Say whether something accepts on a local port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def tunnel(
    gateway: TestGateway, handle: str, key: Path, *options: str, wait_for: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `ssh -N` with some options, and wait until it listens."""
    command = gateway.ssh(handle, key, before=["-N", "-o", "ExitOnForwardFailure=yes", *options])
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        if wait_for is not None:
            poll(lambda: is_listening(wait_for), "the tunnel")
        yield process
    finally:
        end(process)


def end(client: "subprocess.Popen[bytes]", seconds: int = 10) -> None:
    """End a client that runs on; one that just began to wait for its server hears the first SIGTERM late."""
    for attempt in range(seconds):
        client.terminate()
        try:
            client.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            if attempt == seconds - 1:
                raise
        else:
            return


class Terminal:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, command: Sequence[str], rows: int = 24, columns: int = 80) -> None:
        self.output = b""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:  # the child becomes the program
            os.execvp(command[0], list(command))  # noqa: S606 - a fixed argv of the test's own
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size; the program gets SIGWINCH."""
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def expect(self, text: str, timeout_seconds: float = 15) -> bytes:
        """Read until a text appears after what was expected before; return all read for it."""
        wanted, deadline = text.encode(), time.monotonic() + timeout_seconds
        while wanted not in self.output:
            assert time.monotonic() < deadline, f"{text!r} did not appear in {self.output[-2000:]!r}"
            if is_readable(self._fd, 0.2):
                try:
                    self.output += os.read(self._fd, 65536)
                except OSError:
                    raise AssertionError(f"the program ended before {text!r}: {self.output[-2000:]!r}") from None
        before, _, self.output = self.output.partition(wanted)
        return before + wanted

    def wait(self, timeout_seconds: float = 15) -> int:
        """Return the program's exit code."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            if is_readable(self._fd, 0.05):
                with suppress(OSError):
                    self.output += os.read(self._fd, 65536)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self._fd)
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, "the program did not end"
