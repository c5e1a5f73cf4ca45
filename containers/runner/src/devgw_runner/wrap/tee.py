"""Copy a child's output both to where ours goes, byte by byte as it comes, and to a log file, line by line.

The log holds both streams, so a line enters it whole: an unbuffered Python writes a line and its end apart, and the
other stream's bytes would stand between them. Where our output is a terminal, the child gets one too, so that its
progress bars stay alive.
"""

import contextlib
import fcntl
import os
import pty
import sys
import termios
import threading
import tty
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

CHUNK = 65536


class Tee:
    """Two pipes (or terminals) with a copying thread each. `on_lost` is called once if our output is gone."""

    def __init__(self, log: Path, on_lost: Callable[[], None]) -> None:
        self._log_path = log
        self._on_lost = on_lost
        self._lost = False
        self._pairs: list[tuple[int, int, int]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._log = self._log_path.open("ab", buffering=0)
        for target in (sys.stdout, sys.stderr):
            reader, writer = _open_terminal(target.fileno()) if target.isatty() else os.pipe()
            self._pairs.append((reader, writer, target.fileno()))
        return self

    @property
    def stdout(self) -> int:
        return self._pairs[0][1]

    @property
    def stderr(self) -> int:
        return self._pairs[1][1]

    def start_copying(self) -> None:
        """Close our copies of the child's ends and begin to copy; call it once the child has started."""
        self._close_writers()
        for reader, _, target in self._pairs:
            thread = threading.Thread(target=self._copy, args=(reader, target), daemon=True)
            thread.start()
            self._threads.append(thread)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._threads:  # the child never started
            self._close_writers()
        for thread in self._threads:
            thread.join(timeout=5)  # a grandchild may keep the pipe open; the child itself has ended
        self._log.close()

    def _close_writers(self) -> None:
        for _, writer, _ in self._pairs:
            os.close(writer)

    def _copy(self, reader: int, target: int) -> None:
        begun = b""  # a line whose end has not come yet
        while chunk := _read(reader):
            whole, begun = _split_lines(begun + chunk)
            self._keep(whole)
            self._show(chunk, target)
        if begun:  # the other stream goes on; what it says next is a line of its own
            self._keep(begun + b"\n")
        os.close(reader)

    def _keep(self, lines: bytes) -> None:
        # A full logs volume must not end the script; the terminal still shows all.
        with contextlib.suppress(OSError, ValueError):
            self._log.write(lines)

    def _show(self, chunk: bytes, target: int) -> None:
        view = memoryview(chunk)
        try:
            while view and not self._lost:
                view = view[os.write(target, view) :]
        except OSError:
            self._lost = True
            self._on_lost()


def _split_lines(text: bytes) -> tuple[bytes, bytes]:
    """Return the lines that are whole, and the begun one; a progress bar ends its lines with CR."""
    end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
    if end == 0 and len(text) >= CHUNK:  # no line of ours: binary output
        end = len(text)
    return text[:end], text[end:]


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, CHUNK)
    except OSError:  # EIO: the last holder of a terminal's other end is gone
        return b""


def _open_terminal(like: int) -> tuple[int, int]:
    reader, writer = pty.openpty()
    size = fcntl.ioctl(like, termios.TIOCGWINSZ, b"\0" * 8)
    fcntl.ioctl(writer, termios.TIOCSWINSZ, size)
    tty.setraw(writer)  # our own terminal translates line ends; twice would be once too often
    return reader, writer
