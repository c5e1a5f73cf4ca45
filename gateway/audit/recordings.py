"""The recordings of terminals that a gateway keeps: which there are, and where a text was shown.

A recording's name says when it began and its reference: `20261126T174502Z-k3v9q2m8ab.cast`, in a directory for each
user (`ssh/observers/observer.py` writes them).
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.audit.recording import frames
from gateway.model import UserName

_NAME = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-z]{10})\.cast")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])")
_TAIL_BYTES = 64 * 2**10
_LONGEST_EVENT = 8 * 2**20
_LONGEST_LINE = 64 * 1024
"""Characters of one shown line that are looked through; a program that never ends its line fills no memory."""


@dataclass(frozen=True, slots=True)
class KeptRecording:
    """A file and what its name says."""

    path: Path
    user: str
    reference: str
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Match:
    """A line that holds the text, and when it was complete on the screen."""

    recording: KeptRecording
    at: datetime
    line: str


def kept_recordings(directory: Path, user: UserName | None = None) -> list[KeptRecording]:
    """Return those that are there, oldest first; what has another name is passed over. Raises: OSError."""
    folders = [directory / user] if user is not None else sorted(directory.glob("*/"))
    found = []
    for folder in folders:
        for path in folder.glob("*.cast"):
            if (name := _NAME.fullmatch(path.name)) and path.is_file() and not path.is_symlink():
                began = datetime.strptime(name[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                found.append(KeptRecording(path, folder.name, name[2], began))
    return sorted(found, key=lambda one: (one.began_at, one.reference))


def recording_at(recordings: list[KeptRecording], at: datetime) -> KeptRecording | None:
    """Return the one that was going on at a moment; of several the one that began last."""
    for one in reversed(recordings):
        if one.began_at <= at < one.began_at + timedelta(seconds=length_seconds(one.path) + 1):
            return one
    return None


def search(recording: KeptRecording, text: str) -> Iterator[Match]:
    """Yield the lines a terminal showed that hold a text, whatever its case; what drives the terminal is left out.

    Raises: JournalError `recording.unreadable`.
    """
    wanted = text.casefold()
    for seconds, line in shown_lines(recording, overlap=len(text)):
        if wanted in line.casefold():
            yield Match(recording, recording.began_at + timedelta(seconds=seconds), line)


def shown_lines(recording: KeptRecording, *, overlap: int = 0) -> Iterator[tuple[float, str]]:
    """Yield what a terminal showed line by line, each with the second at which it was complete.

    A line without an end comes in parts, which have `overlap` characters in common. Raises: JournalError
    `recording.unreadable`.
    """
    pending, seconds = "", 0.0
    for pause, shown in frames(recording.path, longest_pause=None):
        seconds += pause
        *lines, pending = re.split(r"[\r\n]+", pending + shown)
        for line in lines:
            yield seconds, _plain(line)
        if len(pending) > _LONGEST_LINE:
            yield seconds, _plain(pending)
            pending = pending[-overlap:] if overlap else ""
    if pending:
        yield seconds, _plain(pending)


def _plain(line: str) -> str:
    return _erased(_ESCAPES.sub("", line))


def _erased(line: str) -> str:
    """Apply backspaces as a terminal does, and leave out other control characters."""
    kept: list[str] = []
    for character in line:
        if character == "\b":
            kept[-1:] = []
        elif character >= " " or character == "\t":
            kept.append(character)
    return "".join(kept)


def length_seconds(path: Path) -> float:
    """Return when the last thing that a recording holds came, from its end alone; 0 where nothing can be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            window = _TAIL_BYTES
            while True:
                start = max(0, size - window)
                file.seek(start)
                lines = file.read(size - start).split(b"\n")[1 if start else 0 : -1]
                for line in reversed(lines):
                    with suppress(ValueError, TypeError, IndexError):
                        return max(0.0, float(json.loads(line)[0]))
                if not start or window >= _LONGEST_EVENT:
                    return 0.0
                window *= 8
    except OSError:
        return 0.0
