"""Recordings of terminals for auditors: which there are, what they showed, and their events to be played.

Whoever opens one, or searches in them, is written down; a piece is given to the connection that opened it.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from gateway.audit.display import printable
from gateway.audit.recordings import KeptRecording, Match, kept_recordings, length_seconds, recording_at, shown_lines
from gateway.audit.recordings import search as search_recording
from gateway.errors import ConflictError, JournalError, NotFoundError, UsageError
from gateway.model import parse_user_name
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.paging import paged
from gateway.page.desk.site import Asker, Site
from gateway.page.desk.spans import moment_asked

answers = Answers()
PIECE_BYTES = 512 * 2**10
_LONGEST_LINE = 2 * 2**20
_KINDS = frozenset({"o", "r", "m"})
"""What was typed ("i") is not shown: passwords are typed too."""
_MATCHES = 200
_SEARCH_SECONDS = 8.0
_LINES = 500
_OPENED_MAX = 10_000
_opened: OrderedDict[tuple[str, str], None] = OrderedDict()


@answers.to("recordings.list", level="auditor")
def listed(site: Site, _asker: Asker, user: str = "", at: str = "", page: int = 1) -> dict[str, Any]:
    """Return the recordings that are kept, the last first; with `at` the one of each user that was going on then."""
    kept = _kept(site, user)
    if moment := moment_asked("at", at):
        going = (recording_at([one for one in kept if one.user == name], moment) for name in {one.user for one in kept})
        kept = sorted((one for one in going if one is not None), key=lambda one: (one.began_at, one.reference))
    found = paged(kept[::-1], page, _facts)
    return found | {"offset_seconds": {one.reference: _seconds(one, moment) for one in kept} if moment else {}}


@answers.to("recordings.search", level="auditor", journaled=True)
def search(site: Site, _asker: Asker, text: str, user: str = "", before: str = "") -> dict[str, Any]:
    """Return lines that terminals showed, from the last recording back; `before` goes on where the time ran out."""
    if not text.strip():
        raise UsageError("search.empty", "there is nothing to search for", "for example nvidia-smi")
    kept = [one for one in reversed(_kept(site, user)) if not before or _place(one) < before]
    matches: list[Match] = []
    unreadable: list[str] = []
    deadline, searched = time.monotonic() + _SEARCH_SECONDS, 0
    for one in kept:
        if time.monotonic() > deadline or len(matches) >= _MATCHES:
            break
        searched += 1
        try:
            matches += islice(search_recording(one, text.strip()), _MATCHES)
        except JournalError:
            unreadable.append(one.reference)
    return {
        "rows": [_match(match) for match in matches],
        "searched": searched,
        "unreadable": unreadable,
        "before": _place(kept[searched - 1]) if 0 < searched < len(kept) else "",
    }


@answers.to("recordings.open", level="auditor", journaled=True)
def opened(site: Site, asker: Asker, recording: str) -> dict[str, Any]:
    """Return what one recording is, and let this connection have it."""
    one = _one(site, recording)
    _opened[asker.connection, recording] = None
    while len(_opened) > _OPENED_MAX:
        _opened.popitem(last=False)
    return _facts(one) | {"seconds": length_seconds(one.path)} | _header(one.path)


@answers.to("recordings.piece", level="auditor")
def piece(site: Site, asker: Asker, recording: str, offset: int = 0) -> dict[str, Any]:
    """Return some of a recording's events as lines; `next` is where the following piece begins, None after the last.

    A line that the gateway could not finish, and one that is none, is left out: what stands there is played.
    """
    one = _opened_one(site, asker, recording)
    try:
        with one.path.open("rb") as file:
            file.seek(max(0, offset))
            block = file.read(PIECE_BYTES)
            if block and not block.endswith(b"\n"):
                block += file.readline(_LONGEST_LINE)
            place = file.tell()
    except OSError as exc:
        raise _unreadable(one, exc) from exc
    lines = [line for line in block.splitlines(keepends=True) if line.endswith(b"\n")]
    if offset <= 0 and lines:
        lines = lines[1:]
    return {"lines": list(_events(lines)), "next": place if len(block) >= PIECE_BYTES else None}


@answers.to("recordings.text", level="auditor")
def text(site: Site, asker: Asker, recording: str, page: int = 1) -> dict[str, Any]:
    """Return what a terminal showed as lines, each with its second; for whom a moving picture tells nothing."""
    one = _opened_one(site, asker, recording)
    first = (max(1, page) - 1) * _LINES
    some = list(islice(shown_lines(one), first, first + _LINES + 1))
    rows = [{"second": int(seconds), "line": printable(line)} for seconds, line in some[:_LINES]]
    return {"rows": rows, "page": max(1, page), "has_more": len(some) > _LINES}


def _kept(site: Site, user: str) -> list[KeptRecording]:
    name = parse_user_name(user.strip()) if user.strip() else None
    try:
        return kept_recordings(site.settings.recordings_dir, name)
    except OSError as exc:
        raise JournalError("recording.unreadable", f"the recordings cannot be read: {exc.strerror}") from exc


def _one(site: Site, reference: str) -> KeptRecording:
    for one in _kept(site, ""):
        if one.reference == reference:
            return one
    message = f"there is no recording {printable(reference[:40])!r}: it was removed, or never finished"
    raise NotFoundError("recording.not-found", message, "the journal names those that were finished: session.recorded")


def _opened_one(site: Site, asker: Asker, reference: str) -> KeptRecording:
    if (asker.connection, reference) not in _opened:
        raise ConflictError("recording.not-opened", "this recording was not opened here", "open it from the list")
    return _one(site, reference)


def _header(path: Path) -> dict[str, Any]:
    """Return the terminal's size, and why the recording cannot be played from its beginning, if so."""
    size = {"columns": 80, "rows": 24}
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(_LONGEST_LINE))
        size = {"columns": int(header["width"]), "rows": int(header["height"])}
        return size | {"damage": "" if header["version"] == 2 else "it is of another version"}
    except OSError as exc:
        return size | {"damage": printable(exc.strerror or str(exc))}
    except (ValueError, TypeError, KeyError):
        return size | {"damage": "its first line is not there"}


def _events(lines: list[bytes]) -> Iterator[str]:
    for line in lines:
        try:
            at, kind, data = json.loads(line)
            if kind in _KINDS and isinstance(data, str):
                yield json.dumps([float(at), kind, data])
        except (ValueError, TypeError):
            continue


def _facts(one: KeptRecording) -> dict[str, Any]:
    try:
        size = one.path.stat().st_size
    except OSError:
        size = 0
    return {
        "id": one.reference,
        "user": printable(one.user),
        "began_at": one.began_at.isoformat(),
        "bytes": size,
    }


def _match(match: Match) -> dict[str, Any]:
    line = match.line.strip()
    return {
        "id": match.recording.reference,
        "user": printable(match.recording.user),
        "at": match.at.isoformat(),
        "second": _seconds(match.recording, match.at),
        "line": printable(line[:300]) + ("…" if len(line) > 300 else ""),
    }


def _seconds(one: KeptRecording, moment: datetime | None) -> int:
    return int((moment - one.began_at).total_seconds()) if moment else 0


def _place(one: KeptRecording) -> str:
    return f"{one.began_at.isoformat()} {one.reference}"


def _unreadable(one: KeptRecording, exc: OSError) -> JournalError:
    return JournalError("recording.unreadable", f"{one.path.name} cannot be played: {exc.strerror}")
