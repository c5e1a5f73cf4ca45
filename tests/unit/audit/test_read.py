"""Reading: filters, following, and what reaches a terminal."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import read
from gateway.audit.display import printable, row
from gateway.audit.journal import Journal
from gateway.audit.read import Filter, follow, stream, utc
from gateway.audit.record import parse
from gateway.audit.segments import segments
from gateway.model import Actor
from tests.unit.audit.conftest import ALICE, MakeEvent
from tests.unit.audit.written_journals import NOON

BOB = Actor("user", "bob", "", "192.0.2.8")
ROOT = Actor("admin", "root")


@pytest.fixture
def mixed(directory: Path, event: MakeEvent) -> Path:
    """Eleven events on consecutive hours from noon, over several segments."""
    journal = Journal(directory, segment_bytes=2000)
    events: list[dict[str, Any]] = [
        {"code": "login.allowed", "actor": ALICE},
        {"code": "forward.allowed", "actor": ALICE},
        {"code": "forward.denied", "actor": ALICE, "decision": "denied", "reference": "refusal001"},
        {"code": "login.refused", "actor": BOB, "decision": "", "environment": ""},
        {"code": "forward.opened", "actor": BOB, "environment": "bob+proj", "decision": ""},
        {"code": "key.added", "actor": ROOT, "environment": "", "decision": "", "detail": {"user": "alice"}},
        {"code": "environment.deleted", "actor": ROOT, "environment": "alice+old", "decision": ""},
        {"code": "session.opened", "actor": Actor("user", "alic"), "environment": "alic", "decision": ""},
        {"code": "user.renamed", "actor": ROOT, "environment": "", "detail": {"user": "old", "to": "carla"}},
        {"code": "environment.renamed", "actor": ROOT, "environment": "old", "detail": {"to": "carla+new"}},
        {"code": "key.failed", "actor": ROOT, "environment": "", "detail": {"to": "carla"}},
    ]
    for hour, fields in enumerate(events):
        journal.append(event(**fields, at=NOON + timedelta(hours=hour)))
    journal.close()
    return directory


FILTERS = [
    # who: the actor, the environment's owner, or the user an administrator acted upon; never a part of a name
    (Filter(user="alice"), [0, 1, 2, 5, 6]),
    (Filter(user="bob"), [3, 4]),
    (Filter(user="alic"), [7]),
    (Filter(user="ali*"), []),
    # a renaming is of both names, or who asks for the new one would not learn of the old
    (Filter(user="old"), [8, 9]),
    (Filter(user="carla"), [8, 9]),
    # what: a code, its first word, a pattern
    (Filter(action="forward.denied"), [2]),
    (Filter(action="forward"), [1, 2, 4]),
    (Filter(action="*.opened"), [4, 7]),
    (Filter(action="for"), []),
    # when: since is included, until is not
    (Filter(action="forward", since=NOON + timedelta(hours=2)), [2, 4]),
    (Filter(action="forward", until=NOON + timedelta(hours=2)), [1]),
    (Filter(since=NOON + timedelta(days=400)), []),
    # refusals of either kind
    (Filter(denied=True), [2, 3]),
    # the id that a refused user was told
    (Filter(reference="refusal001"), [2]),
    # all at once
    (Filter(user="alice", action="forward", denied=True), [2]),
]


@pytest.mark.parametrize(("wanted", "hours"), FILTERS)
def test_a_filter_lets_through(mixed: Path, wanted: Filter, hours: list[int]) -> None:
    assert len(segments(mixed)) > 1
    found = [record for record in stream(mixed, wanted) if not record.code.startswith("journal.")]
    assert [int((record.at - NOON).total_seconds() / 3600) for record in found] == hours


@pytest.mark.parametrize(
    ("wanted", "parsed"),
    [(Filter(denied=True), 2), (Filter(action="forward.denied"), 1), (Filter(reference="refusal001"), 1)],
)
def test_what_is_not_wanted_is_passed_over_unparsed(
    mixed: Path, wanted: Filter, parsed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsing a line costs ten times as much as looking at it, and a newest segment has 130,000."""
    seen: list[bytes] = []
    monkeypatch.setattr(read, "parse", lambda line: seen.append(line) or parse(line))
    assert len(list(stream(mixed, wanted, whole=True))) == len(seen) == parsed


def test_following_goes_on_across_segments(directory: Path, event: MakeEvent) -> None:
    """Records that were there before are left out, unless a number is given to begin after."""
    journal = Journal(directory, segment_bytes=1500)
    journal.append(event(detail={"n": -1}))
    rounds = iter(range(12))

    def wait() -> bool:
        number = next(rounds, None)
        if number is not None:
            journal.append(event(detail={"n": number}))
        return number is not None

    seen = [record.detail["n"] for record in follow(directory, Filter(action="forward"), wait)]
    journal.close()
    assert seen == list(range(12))
    assert len(segments(directory)) > 2
    again = [record.number for record in follow(directory, Filter(), lambda: False, after=5)]
    assert again[0] == 6


def test_following_waits_for_the_end_of_a_line(written: Path) -> None:
    path = segments(written)[0].path
    line = path.read_bytes().splitlines(keepends=True)[-1]
    path.write_bytes(path.read_bytes()[:-30])
    steps = iter([lambda: None, lambda: path.write_bytes(path.read_bytes() + line[-30:])])

    def wait() -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is not None

    assert [record.number for record in follow(written, Filter(), wait, after=9)] == [10]


UNSAFE = [
    ("plain text", "plain text"),
    ("größe 東京", "größe 東京"),
    ("\x1b[2J", "\\x1b[2J"),
    ("a\nb\r\tc", "a\\x0ab\\x0d\\x09c"),
    ("\u202egnp.exe", "\\u202egnp.exe"),
    ("zero\u200bwidth\u2066", "zero\\u200bwidth\\u2066"),
    ("\x9b31m\x7f", "\\x9b31m\\x7f"),
    ("\udc80", "\\udc80"),
    ("\U000e0041", "\\U000e0041"),
]


@pytest.mark.attack("B3", "escape sequences on their way from the journal to a terminal")
@pytest.mark.parametrize(("text", "shown"), UNSAFE)
def test_nothing_acts_on_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_row_is_safe_to_print(directory: Path, journal: Journal, event: MakeEvent) -> None:
    journal.append(event(actor=Actor("user", "\x1b]0;x\x07"), reason="bad\u202e", detail={"host": "a\nb", "empty": ""}))
    cells = row(list(stream(directory))[-1])
    assert all(cell.isprintable() for cell in cells.values())
    assert (cells["user"], cells["what"]) == ("\\x1b]0;x\\x07", "host=a\\x0ab; bad\\u202e")


@pytest.mark.parametrize(
    ("text", "hour"), [("2026-05-03", 0), ("2026-05-03T12:00", 12), ("2026-05-03T12:00+02:00", 10)]
)
def test_a_day_is_read_in_utc(text: str, hour: int) -> None:
    moment = utc(text)
    assert moment == NOON.replace(hour=hour)


def test_a_record_comes_back_as_its_own_line(written: Path) -> None:
    """What `-o json` prints is what was written, field by field."""
    lines = segments(written)[0].path.read_bytes().splitlines()
    assert [record.as_dict() for record in stream(written)] == [json.loads(line) for line in lines]
