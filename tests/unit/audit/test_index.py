"""The index of a journal: a question reads what can hold its answer, and the answer is the one of reading it all."""

import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from gateway.audit.event import Event
from gateway.audit.exposure import exposure
from gateway.audit.journal import Journal
from gateway.audit.journal_index import INDEX_DIRECTORY, JournalIndex
from gateway.audit.policy_history import keep, loaded_event
from gateway.audit.read import Filter, follow, last_of_each, settled_before, stream
from gateway.audit.segments import segments
from gateway.audit.verify import verify
from policies.load import parse_policy
from tests.unit.audit.written_journals import GATEWAY, HOUR, NOON, QUESTIONS, USERS, act, hourly, write_segments


def times(directory: Path, since: datetime, until: datetime | None = None, *, whole: bool = False) -> list[float]:
    """Return the hours at which a span's records stand, in the journal's order."""
    wanted = Filter(action="session", since=since, until=until)
    return [(record.at - NOON) / HOUR for record in stream(directory, wanted, whole=whole)]


def rewrite(path: Path, pattern: bytes, text: bytes) -> None:
    """Replace something in all records but the last, and leave size and times as they were: no index can notice."""
    status, content = path.stat(), path.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(re.sub(pattern, text, content[:last]) + content[last:])
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def indexed(directory: Path) -> Path:
    assert {one.outcome for one in JournalIndex(directory).refresh()} == {"made"}
    return directory


def test_segments_that_cannot_hold_the_span_are_not_read(directory: Path) -> None:
    write_segments(directory, [hourly(range(start, start + 10)) for start in range(0, 50, 10)])
    indexed(directory)
    for segment in segments(directory)[:3]:
        rewrite(segment.path, rb'"time":"[^"]*"', b'"time":"2026-05-04T21:30:00.000000Z"')
    span = (NOON + 33 * HOUR, NOON + 36 * HOUR)
    assert times(directory, *span) == [33, 34, 35]
    assert times(directory, *span, whole=True) == [33.5] * 30 + [33, 34, 35]


JUMPS = {
    "back by a day, in the middle of a segment": [[*range(40, 50), *range(16, 26)], [*range(26, 36)], [*range(36, 39)]],
    "back between two segments": [[*range(40, 50)], [*range(16, 26)], [*range(26, 30)]],
    "forward and back again": [[*range(10)], [10, 5000, 5001, 11, 12], [13, 14], [15]],
    "forward for good": [[*range(10)], [1000, 1001], [1002], [1003]],
    "one record far behind": [[*range(10)], [10, 11, -500, 12], [13], [14]],
}


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_jumps_hides_nothing(directory: Path, jump: str) -> None:
    """Each span of a grid holds what reading everything finds in it."""
    write_segments(directory, [hourly(part) for part in JUMPS[jump]])
    indexed(directory)
    hours = sorted({hour for part in JUMPS[jump] for hour in part})
    for begin in [hours[0] - 1, *hours]:
        for length in (1, 3, 24, 10_000):
            since, until = NOON + begin * HOUR, NOON + (begin + length) * HOUR
            expected = [hour for part in JUMPS[jump] for hour in part if begin <= hour < begin + length]
            assert times(directory, since, until) == expected == times(directory, since, until, whole=True)


@pytest.mark.parametrize("wanted", QUESTIONS, ids=map(str, range(len(QUESTIONS))))  # a set has no order of its own
def test_an_index_answers_as_the_records_do(crowded: Path, wanted: Filter) -> None:
    whole = [record.number for record in stream(crowded, wanted, whole=True)]
    everything = [record.number for record in stream(crowded) if wanted.lets_through(record)]
    first = [record.number for record in stream(crowded, wanted)]
    again = [record.number for record in stream(crowded, wanted)]
    assert first == again == whole == everything
    assert len(list((crowded / INDEX_DIRECTORY).iterdir())) == 4


def test_each_users_last_login_is_found_from_the_end(crowded: Path) -> None:
    logins = {record.actor["name"]: record for record in stream(crowded, Filter(action="login.allowed"))}
    assert last_of_each(crowded, [*USERS, "nobody"], "login.allowed") == logins
    (crowded / INDEX_DIRECTORY / "segment-000000001003.idx").write_bytes(b"devgwix1" + bytes(200))
    assert last_of_each(crowded, USERS, "login.allowed") == logins


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(40, len(content), 97):
        content[place] ^= 0x55
    path.write_bytes(content)


def _take_another(path: Path) -> None:
    other = next(one for one in sorted(path.parent.iterdir()) if one != path)
    path.write_bytes(other.read_bytes())


HARMS: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut short": _cut,
    "bits turned": _flip,
    "another segment's": _take_another,
    "another version's": lambda path: path.write_bytes(b"devgwix9" + path.read_bytes()[8:]),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_index_is_as_none(crowded: Path, harm: str) -> None:
    indexed(crowded)
    HARMS[harm](sorted((crowded / INDEX_DIRECTORY).iterdir())[1])
    for wanted in (Filter(user="alice"), Filter(since=NOON + 50 * HOUR), Filter(reference="ref1200")):
        assert list(stream(crowded, wanted)) == list(stream(crowded, wanted, whole=True))
    assert verify(crowded).ok


def test_an_index_is_of_the_segment_as_it_is_now(crowded: Path) -> None:
    """A segment restored or exchanged under the same name is read, not looked up in what stood there before."""
    indexed(crowded)
    path = segments(crowded)[1].path
    path.write_bytes(path.read_bytes().replace(b'"name":"alice"', b'"name":"alicf"'))
    assert list(stream(crowded, Filter(user="alicf"))) == list(stream(crowded, Filter(user="alicf"), whole=True)) != []


def test_an_index_that_somebody_forged_is_found_when_it_is_made_anew(crowded: Path) -> None:
    indexed(crowded)
    first, second = (crowded / INDEX_DIRECTORY / one.path.with_suffix(".idx").name for one in segments(crowded)[:2])
    hidden = crowded.with_name("hidden")
    write_segments(hidden, [hourly(range(3)), hourly(range(3))])
    target = segments(crowded)[0].path
    lie = JournalIndex(hidden)
    list(lie.refresh())
    forged = (hidden / INDEX_DIRECTORY / "segment-000000000001.idx").read_bytes()
    first.write_bytes(forged)  # not of this segment: it is not believed at all
    assert list(stream(crowded, Filter(user="bob"))) == list(stream(crowded, Filter(user="bob"), whole=True))
    list(JournalIndex(crowded).refresh())
    rewrite(target, b'"environment":', b'"environment" ')
    outcomes = {one.segment: one.outcome for one in JournalIndex(crowded).refresh(anew=True)}
    assert outcomes[target.name] == "not made"
    assert {outcomes[one.path.name] for one in segments(crowded)[1:-1]} == {"was there"}
    assert second.exists()


def test_an_index_that_leads_astray_costs_time_and_no_records(crowded: Path) -> None:
    """The records moved by a few bytes, with size, time and end as before: what no honest writer does."""
    indexed(crowded)
    path = segments(crowded)[0].path
    status, content = path.stat(), path.read_bytes()
    lines = content.splitlines(keepends=True)
    lines[5], lines[6] = lines[6], lines[5]
    path.write_bytes(b"".join([*lines[:1], lines[-2], *lines[1:-2], lines[-1]]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = [record.number for record in stream(crowded, Filter(user="alice"))]
    assert sorted(found) == sorted(record.number for record in stream(crowded, Filter(user="alice"), whole=True))


def test_nobody_but_the_owner_makes_files_in_a_journal_it_may_not_write(crowded: Path) -> None:
    """A copy on a read-only disk is read in full, and answers the same."""
    expected = list(stream(crowded, Filter(user="alice"), whole=True))
    (crowded / INDEX_DIRECTORY).write_text("in the way")
    assert list(stream(crowded, Filter(user="alice"))) == expected
    assert (crowded / INDEX_DIRECTORY).read_text() == "in the way"


def test_a_segment_begun_while_reading_takes_nothing_away(directory: Path, event: Callable[..., Event]) -> None:
    journal = Journal(directory, segment_bytes=4000)
    for number in range(100):
        journal.append(event(detail={"n": number}))
    seen: list[object] = []
    for record in stream(directory, Filter(action="forward")):
        seen.append(record.detail["n"])
        if len(seen) % 10 == 1:
            for _ in range(10):
                journal.append(event(detail={"n": -1}))
    journal.close()
    assert [one for one in seen if one != -1] == list(range(100))
    assert len(seen) < sum(1 for _ in stream(directory, Filter(action="forward")))


def test_segments_pruned_while_reading_are_gone_and_no_fault(crowded: Path) -> None:
    indexed(crowded)
    records = stream(crowded, Filter(user="alice"))
    first = next(records)
    for segment in segments(crowded)[:3]:
        segment.path.unlink()
    rest = [record.number for record in records]
    assert first.number < 1003
    assert rest[-1] > 4008
    outcomes = list(JournalIndex(crowded).refresh())
    assert len(outcomes) == len(list((crowded / INDEX_DIRECTORY).iterdir())) == 1


def test_a_segment_missing_in_the_middle_is_no_pruning(crowded: Path) -> None:
    indexed(crowded)
    records = stream(crowded, Filter(user="alice"))
    next(records)
    segments(crowded)[2].path.unlink()
    with pytest.raises(FileNotFoundError):
        list(records)


def test_following_begins_with_what_an_index_finds(crowded: Path) -> None:
    wanted = Filter(user="bob", since=NOON + 40 * HOUR)
    followed = [record.number for record in follow(crowded, wanted, lambda: False, after=0)]
    assert followed == [record.number for record in stream(crowded, wanted, whole=True)]
    later = [record.number for record in follow(crowded, wanted, lambda: False, after=2500)]
    assert later == [number for number in followed if number > 2500]


POLICY = """
version = 1
default_roles = ["member"]
[roles.member]
images = ["*"]
max_environments = 1
datasets = ["imagenet"]
"""


@pytest.mark.parametrize("ahead", [0, 30])
def test_who_had_a_dataset_is_answered_from_the_last_start_that_settles_it(directory: Path, ahead: int) -> None:
    """Also where the clock ran ahead by days before that start, so that a stay from then reaches into the span."""
    archive = directory.with_name("policies")
    loaded = loaded_event(GATEWAY, Path("p.toml"), keep(archive, POLICY), None, parse_policy(POLICY, "p"))
    shift = ahead * HOUR

    def note(hour: float, code: str, user: str = "alice", **detail: str) -> Event:
        return act(NOON + hour * HOUR, user, code, detail=detail, environment="" if code[:4] == "user" else user)

    write_segments(
        directory,
        [
            [
                Event(loaded.code, loaded.actor, detail=loaded.detail, at=NOON),
                note(0, "user.created", user="alice"),
                note(0, "environment.created", datasets="imagenet"),
                act(NOON + shift, code="session.opened"),
                act(NOON + HOUR + shift, code="session.closed"),
            ],
            [act(NOON + 2 * HOUR, code="session.opened"), act(NOON + 3 * HOUR, "x", "gateway.started")],
            [act(NOON + 4 * HOUR, code="session.opened")],
            [act(NOON + 20 * HOUR, code="session.closed"), act(NOON + 21 * HOUR, code="session.opened")],
        ],
    )
    since, until = NOON + 10 * HOUR, NOON + 40 * HOUR
    found = exposure(directory, archive, "imagenet", since, until)
    assert [one.openings for one in found.did] == [3 if ahead else 2]
    assert settled_before(directory, since) == (0 if ahead else 14)


def test_a_journal_without_a_record_answers_nothing(directory: Path) -> None:
    directory.mkdir()
    assert list(stream(directory, Filter(user="alice"))) == []
    assert list(stream(directory)) == []
    assert list(follow(directory, Filter(), lambda: False, after=0)) == []
    assert last_of_each(directory, USERS, "login.allowed") == {}
    assert settled_before(directory, NOON) == 0
    assert list(JournalIndex(directory).refresh()) == []
