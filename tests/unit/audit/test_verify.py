"""Verification names the first bad record, whatever was done to the files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.audit.heads import Head
from gateway.audit.journal import Journal
from gateway.audit.record import encode, finish
from gateway.audit.segments import digest_of, segments
from gateway.audit.verify import verify
from tests.unit.audit.conftest import MakeEvent

Lines = list[bytes]


def forge(lines: Lines, event: MakeEvent) -> bytes:
    """Make a record that follows record 4 as it should: the forger knows the format, but not the future."""
    return finish(5, encode(event("session.killed")), digest_of(lines[3]))[0]


# What is done to the ten lines, the kind that is named, and the record: lines count from 0, records from 1.
EDITS: list[tuple[str, Callable[[Lines, MakeEvent], Lines], str, int]] = [
    ("flipped byte", lambda ls, _: [*ls[:4], ls[4].replace(b'"n":4', b'"n":5'), *ls[5:]], "changed", 5),
    ("flipped bit in the hash", lambda ls, _: [*ls[:4], ls[4][:-4] + bytes([ls[4][-4] ^ 1]) + ls[4][-3:], *ls[5:]],
     "changed", 5),
    ("flipped byte in the frame", lambda ls, _: [*ls[:4], ls[4].replace(b',"hash":"', b',"hasH":"'), *ls[5:]],
     "unreadable", 5),
    ("flipped byte in the number", lambda ls, _: [*ls[:4], ls[4].replace(b'"seq":5,', b'"seq":7,'), *ls[5:]],
     "missing", 5),
    ("deleted record", lambda ls, _: ls[:4] + ls[5:], "missing", 5),
    ("deleted records", lambda ls, _: ls[:4] + ls[7:], "missing", 5),
    ("swapped records", lambda ls, _: [*ls[:4], ls[5], ls[4], *ls[6:]], "out-of-order", 5),
    ("repeated record", lambda ls, _: [*ls[:5], ls[4], *ls[5:]], "out-of-order", 6),
    ("forged insert", lambda ls, e: [*ls[:4], forge(ls, e), *ls[4:]], "out-of-order", 6),
    ("forged replacement", lambda ls, e: [*ls[:4], forge(ls, e), *ls[5:]], "changed", 6),
    ("emptied line", lambda ls, _: [*ls[:4], b"\n", *ls[5:]], "unreadable", 5),
    ("junk", lambda ls, _: [*ls[:4], b"\xff\xfe\n", *ls[4:]], "unreadable", 5),
    ("first record gone", lambda ls, _: ls[1:], "unreadable", 1),
]  # fmt: skip


@pytest.mark.attack("H1", "a record changed, deleted, swapped, repeated, forged: the first bad one is named")
@pytest.mark.parametrize(("edit", "kind", "seq"), [row[1:] for row in EDITS], ids=[row[0] for row in EDITS])
def test_an_edit_is_named_by_its_first_bad_record(
    written: Path, event: MakeEvent, edit: Callable[[Lines, MakeEvent], Lines], kind: str, seq: int
) -> None:
    path = segments(written)[0].path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(edit(lines, event)))
    problem = verify(written).problem
    assert problem is not None
    assert (problem.kind, problem.seq, problem.file) == (kind, seq, path.name)


@pytest.mark.attack("H1", "every byte of the file, flipped one at a time")
def test_every_single_flipped_byte_is_found(written: Path) -> None:
    """No byte of the file, newlines included, lies outside what is checked."""
    path = segments(written)[0].path
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        flipped = bytes([content[place] ^ 0x01])
        path.write_bytes(content[:place] + flipped + content[place + 1 :])
        assert not verify(written).ok or place == len(content) - 1, place


def test_a_whole_journal_is_whole(written: Path) -> None:
    report = verify(written)
    assert (report.ok, report.records, report.first_seq, report.last_seq) == (True, 10, 1, 10)
    assert json.dumps(report.as_dict())


def test_an_empty_directory_is_an_empty_journal(tmp_path: Path) -> None:
    assert verify(tmp_path).records == 0


@pytest.mark.attack("H2", "the tail cut off: shows against an exported head")
@pytest.mark.parametrize("kept", [9, 5, 1])
def test_a_cut_tail_shows_against_a_head_and_only_against_one(written: Path, kept: int) -> None:
    """The chain alone cannot know what came after; that is why heads are exported."""
    head = Head("test", 10, bytes.fromhex(verify(written).last_hash))
    path = segments(written)[0].path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    assert verify(written).ok
    problem = verify(written, head).problem
    assert problem is not None
    assert (problem.kind, problem.seq) == ("truncated", kept + 1)


@pytest.mark.attack("H2", "the whole chain recomputed")
def test_a_journal_rewritten_from_the_start_differs_from_the_head(written: Path, event: MakeEvent) -> None:
    """Somebody who recomputes the whole chain is caught by the head alone."""
    head = Head("test", 10, bytes.fromhex(verify(written).last_hash))
    shutil.rmtree(written)
    forged = Journal(written)
    for number in range(1, 15):
        forged.append(event(detail={"n": number}))
    forged.close()
    assert verify(written).ok
    problem = verify(written, head).problem
    assert problem is not None
    assert (problem.kind, problem.seq) == ("head-differs", 10)


def test_a_head_in_the_middle_is_compared(written: Path) -> None:
    lines = segments(written)[0].path.read_bytes().splitlines(keepends=True)
    report = verify(written, Head("test", 7, digest_of(lines[6])))
    assert (report.ok, report.head_checked) == (True, True)


@pytest.fixture
def several(directory: Path, event: MakeEvent) -> Path:
    """Four segments of three records each."""
    journal = Journal(directory, segment_bytes=1)
    for number in range(4):
        journal.append(event(detail={"n": number}))
    journal.close()
    return directory


@pytest.mark.attack("H3", "a whole file removed")
def test_a_missing_segment_in_the_middle_is_found(several: Path) -> None:
    segments(several)[1].path.unlink()
    problem = verify(several).problem
    assert problem is not None
    assert (problem.kind, problem.seq) == ("missing", 4)


@pytest.mark.attack("H3", "old files removed without a record of it")
def test_missing_old_segments_need_a_record_that_says_they_were_pruned(several: Path) -> None:
    segments(several)[0].path.unlink()
    problem = verify(several).problem
    assert problem is not None
    assert problem.kind == "pruned-unannounced"


def test_a_segment_cut_in_the_middle_of_a_line_is_found_unless_it_is_the_last(several: Path) -> None:
    last, first = segments(several)[-1].path, segments(several)[0].path
    last.chmod(0o600)
    last.write_bytes(last.read_bytes()[:-10])
    assert (verify(several).ok, len(verify(several).notes)) == (True, 1)
    first.chmod(0o600)
    first.write_bytes(first.read_bytes()[:-10])
    problem = verify(several).problem
    assert problem is not None
    assert (problem.kind, problem.seq) == ("unreadable", 3)


def test_a_line_without_end_does_not_fill_the_memory(written: Path) -> None:
    with segments(written)[0].path.open("ab") as file:
        file.write(b"x" * 5_000_000)
    problem = verify(written).problem
    assert problem is not None
    assert problem.kind == "unreadable"
