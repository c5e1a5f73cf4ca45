"""The journal from its end back: page after page the same records as reading it whole, in the opposite order."""

import itertools
import os
import random
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.audit import read_newest
from gateway.audit.event import Event
from gateway.audit.journal_index import JournalIndex
from gateway.audit.read import Filter, stream
from gateway.audit.read_newest import newest
from gateway.audit.record import Record
from gateway.audit.segments import segments
from tests.unit.audit.written_journals import HOUR, NOON, QUESTIONS, act, write_segments


def pages(directory: Path, wanted: Filter, limit: int) -> list[Record]:
    """Turn every page."""
    records: list[Record] = []
    before = ""
    while True:
        page = newest(directory, wanted, limit=limit, before=before)
        assert len(page.records) <= limit
        records += page.records
        if not page.older:
            return records
        assert len(page.records) == limit
        assert page.older != before
        before = page.older


@pytest.mark.parametrize("wanted", [Filter(), Filter(since=NOON + 90 * HOUR), *QUESTIONS], ids=itertools.count(1))
def test_all_pages_together_are_the_journal_backwards(crowded: Path, wanted: Filter) -> None:
    assert pages(crowded, wanted, 37) == list(stream(crowded, wanted, whole=True))[::-1]


def test_a_page_is_as_long_as_what_is_there(crowded: Path) -> None:
    """There is an older page only where it would hold something."""
    wanted = Filter(action="forward.denied")
    number = len(list(stream(crowded, wanted)))
    whole = newest(crowded, wanted, limit=number)
    assert (len(whole.records), whole.older) == (number, "")
    assert newest(crowded, wanted, limit=number - 1).older


def test_lines_that_blocks_cut_are_whole(crowded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks shorter and a little longer than a line give the same records."""
    for wanted in (Filter(), Filter(user="bob"), Filter(denied=True)):
        expected = list(stream(crowded, wanted, whole=True))[::-1]
        assert expected
        for size in (100, 411, 5000):
            monkeypatch.setattr(read_newest, "_BLOCK_BYTES", size)
            assert pages(crowded, wanted, 999) == expected


def test_the_first_page_reads_only_the_end(crowded: Path) -> None:
    """What stands in older segments is not even looked at."""
    for segment in segments(crowded)[:-1]:
        segment.path.write_bytes(b"not a journal\n")
    assert len(newest(crowded, Filter(), limit=500).records) == 500


def test_an_unfinished_record_at_the_end_is_left_out(crowded: Path) -> None:
    path = segments(crowded)[-1].path
    last = newest(crowded, Filter(), limit=1).records
    with path.open("ab") as file:
        file.write(b'{"v":1,"seq":9999,"time":"2026-05-03T1')
    assert newest(crowded, Filter(), limit=1).records == last


def test_an_index_that_leads_astray_hides_nothing(crowded: Path) -> None:
    """Records moved by some bytes under an index that cannot notice: all of them are still found, each once."""
    list(JournalIndex(crowded).refresh())
    path = segments(crowded)[1].path
    status, content = path.stat(), path.read_bytes()
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:400], lines[-2], *lines[400:-2], lines[-1]]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for wanted in (Filter(user="bob"), Filter(since=NOON + 50 * HOUR)):
        found = [one.number for one in newest(crowded, wanted, limit=9999).records]
        assert sorted(found) == sorted(one.number for one in stream(crowded, wanted, whole=True))


def test_several_gateways_journals_are_one_by_their_times(tmp_path: Path) -> None:
    """No record is lost or comes twice where pages end, also with equal times in both journals."""
    dice = random.Random(4)
    for name in ("gw1", "gw2"):
        (tmp_path / name).mkdir()
        moments = sorted(dice.randrange(40) for _ in range(60))
        parts: list[list[Event]] = [
            [act(NOON + one * HOUR, name) for one in half] for half in (moments[:30], moments[30:])
        ]
        write_segments(tmp_path / name / "journal", parts)
    found = pages(tmp_path, Filter(action="session"), 7)
    assert len(found) == 120
    assert len({(one.actor["name"], one.number) for one in found}) == 120
    assert [one.at for one in found] == sorted((one.at for one in found), reverse=True)


@pytest.mark.parametrize("before", ["x", "1-2", "-1", "--", "1,2"])
def test_a_made_up_page_is_refused(crowded: Path, before: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        newest(crowded, Filter(), limit=5, before=before)


def test_a_span_is_found_from_the_end(crowded: Path) -> None:
    """Times stand in no order here: the index says which blocks may hold the span."""
    span = Filter(since=NOON + 10 * HOUR, until=NOON + 10 * HOUR + timedelta(minutes=30))
    assert pages(crowded, span, 3) == list(stream(crowded, span, whole=True))[::-1]
