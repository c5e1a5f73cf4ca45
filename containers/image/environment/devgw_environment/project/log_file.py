"""The log of a project's commands: bounded, whatever they print, and never what they wait for."""

import contextlib
import os
from collections import deque
from pathlib import Path

HEAD_BYTES = 1024 * 1024
TAIL_BYTES = 256 * 1024


class LogFile:
    """Keeps the beginning and the end of what is written; a full disk is no error."""

    def __init__(self, path: Path) -> None:
        self._room = HEAD_BYTES
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._left_out = 0
        self._descriptor = -1
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # what stands there may be a link or a pipe
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o600)

    def write(self, data: bytes) -> None:
        """Keep what there is room for; of the rest, the newest."""
        self._put(data[: self._room])
        rest = data[self._room :]
        self._room -= len(data) - len(rest)
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
        while self._tail and self._tail_bytes - len(self._tail[0]) >= TAIL_BYTES:
            oldest = self._tail.popleft()
            self._tail_bytes -= len(oldest)
            self._left_out += len(oldest)

    def close(self) -> None:
        """Write the end of a long output, and how much is missing before it."""
        if self._left_out:
            self._put(f"\n[devgw: {self._left_out} bytes are left out here]\n".encode())
        for data in self._tail:
            self._put(data)
        self._tail.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _put(self, data: bytes) -> None:
        if self._descriptor >= 0 and data:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, data)
