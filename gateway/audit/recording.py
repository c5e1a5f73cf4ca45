"""Recordings of terminals in asciicast v2: what the screen showed, and when. Input only where it was asked for.

Only pty channels are recorded: file transfers would fill the disk and show nothing (docs.asciinema.org, asciicast v2).
"""

import codecs
import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import IO

from gateway.errors import JournalError

_DEFAULT_CAP_BYTES = 64 * 2**20
_LONGEST_LINE = 4 * 2**20
_LONGEST_PAUSE = 2.0


class Recording:
    """Writes one terminal's output to a new file, 0600. When the cap is reached it says so in the file and stops."""

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        began_at: datetime,
        title: str = "",
        cap_bytes: int = _DEFAULT_CAP_BYTES,
        record_input: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Begin a recording. Raises: JournalError `recording.unwritable`, also where the file exists."""
        self.path = path
        self.is_full = False
        self._cap_bytes = cap_bytes
        self._record_input = record_input
        self._clock = clock
        self._began = clock()
        self._written_bytes = 0
        self._decoders = {kind: codecs.getincrementaldecoder("utf-8")("replace") for kind in "oi"}
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            self._file: IO[bytes] = os.fdopen(descriptor, "wb")
            header: dict[str, object] = {"version": 2, "width": width, "height": height}
            header |= {"timestamp": int(began_at.timestamp()), "title": title}
            self._put(header)
        except OSError as exc:
            raise JournalError("recording.unwritable", f"the session cannot be recorded: {exc.strerror}") from exc

    def output(self, data: bytes) -> None:
        """Record what the terminal showed. Raises: JournalError `recording.unwritable`."""
        self._event("o", data)

    def input(self, data: bytes) -> None:
        """Record what was typed, where the policy asked for that; passwords are typed too."""
        if self._record_input:
            self._event("i", data)

    def resize(self, width: int, height: int) -> None:
        """Record a new size of the terminal."""
        self._write("r", f"{width}x{height}")

    def close(self) -> int:
        """End the recording, durably. Returns its size in bytes."""
        if not self._file.closed:
            self._guarded(self._finish)
        return self._written_bytes

    def _finish(self) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def _event(self, kind: str, data: bytes) -> None:
        text = self._decoders[kind].decode(data)
        if text:
            self._write(kind, text)

    def _write(self, kind: str, text: str) -> None:
        if self.is_full or self._file.closed:
            return
        elapsed = round(self._clock() - self._began, 6)
        if self._written_bytes + len(text) > self._cap_bytes:
            self.is_full = True
            kind, text = "m", f"recording stopped at {self._cap_bytes} bytes"
        self._guarded(lambda: self._put([elapsed, kind, text]))

    def _put(self, value: object) -> None:
        line = json.dumps(value).encode() + b"\n"
        self._file.write(line)
        self._written_bytes += len(line)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as exc:
            raise JournalError("recording.unwritable", f"the session cannot be recorded: {exc.strerror}") from exc


def frames(
    path: Path, *, speed: float = 1.0, longest_pause: float | None = _LONGEST_PAUSE
) -> Iterator[tuple[float, str]]:
    """Yield what to wait in seconds, then what to show, for `devgw sessions play`.

    A recording replays whatever the environment printed: show it in a terminal of its own.

    Raises:
        JournalError: `recording.unreadable`, when the file is no asciicast v2.
    """
    try:
        with path.open("rb") as file:
            _check_header(file.readline(_LONGEST_LINE))
            shown_at = 0.0
            for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
                if not line.endswith(b"\n"):
                    return  # the gateway ended while it wrote this
                at, kind, text = json.loads(line)
                if kind == "o":
                    pause = max(0.0, float(at) - shown_at) / speed
                    shown_at = float(at)
                    yield min(pause, longest_pause) if longest_pause is not None else pause, str(text)
    except OSError as exc:
        raise JournalError("recording.unreadable", f"{path.name} cannot be played: {exc.strerror}") from exc
    except (ValueError, TypeError) as exc:
        raise JournalError("recording.unreadable", f"{path.name} cannot be played: {exc}") from exc


def play(
    path: Path,
    show: Callable[[str], None],
    wait: Callable[[float], None],
    *,
    speed: float = 1.0,
    skip_seconds: float = 0.0,
) -> None:
    """Play a recording through two callables; what was shown before `skip_seconds` comes at once.

    Raises: JournalError `recording.unreadable`.
    """
    at = 0.0
    for pause, text in frames(path, longest_pause=None):
        begun, at = at, at + pause
        left = at - max(begun, skip_seconds)
        if left > 0:
            wait(min(left / speed, _LONGEST_PAUSE))
        show(text)


def _check_header(line: bytes) -> None:
    header = json.loads(line)
    if not isinstance(header, Mapping) or header.get("version") != 2:
        raise ValueError("not asciicast v2")
