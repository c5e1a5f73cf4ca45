"""The recordings of terminals that a gateway keeps: which there are, and where a text was shown.

A recording's name says when it began and its reference: `20261126T174502Z-k3v9q2m8ab.cast`, in a directory for each
user (`ssh/observers/observer.py` writes them).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.audit.recording import frames
from gateway.errors import JournalError
from gateway.model import UserName

_NAME = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-z]{10})\.cast")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])")
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
        if one.began_at <= at < one.began_at + timedelta(seconds=_length_seconds(one.path) + 1):
            return one
    return None


def search(recording: KeptRecording, text: str) -> Iterator[Match]:
    """Yield the lines a terminal showed that hold a text, whatever its case; what drives the terminal is left out.

    Raises: JournalError `recording.unreadable`.
    """
    wanted = text.casefold()
    pending, seconds = "", 0.0
    for pause, shown in frames(recording.path, longest_pause=None):
        seconds += pause
        *lines, pending = re.split(r"[\r\n]+", pending + shown)
        for line in lines:
            yield from _match(recording, line, wanted, seconds)
        if len(pending) > _LONGEST_LINE:
            yield from _match(recording, pending, wanted, seconds)
            pending = pending[-len(text) :]
    yield from _match(recording, pending, wanted, seconds)


def _match(recording: KeptRecording, line: str, wanted: str, seconds: float) -> Iterator[Match]:
    plain = _erased(_ESCAPES.sub("", line))
    if wanted in plain.casefold():
        yield Match(recording, recording.began_at + timedelta(seconds=seconds), plain)


def _erased(line: str) -> str:
    """Apply backspaces as a terminal does, and leave out other control characters."""
    kept: list[str] = []
    for character in line:
        if character == "\b":
            kept[-1:] = []
        elif character >= " " or character == "\t":
            kept.append(character)
    return "".join(kept)


def _length_seconds(path: Path) -> float:
    try:
        return sum(pause for pause, _shown in frames(path, longest_pause=None))
    except JournalError:
        return 0.0
