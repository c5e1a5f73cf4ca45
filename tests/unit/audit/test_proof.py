"""What heads prove, and that nothing is called proven that was not: whatever was done to the files."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.audit.event import Event
from gateway.audit.head_signing import current_head, kept_heads
from gateway.audit.heads import Head, Pruned, Signer, open_head
from gateway.audit.journal import Journal
from gateway.audit.record import encode, finish, parse
from gateway.audit.retention import prune
from gateway.audit.segments import first_record, last_record, segments
from gateway.audit.verify import Report, verify
from gateway.errors import JournalError
from gateway.model import Actor
from tests.unit.audit.conftest import ALICE, MakeEvent, signing
from tests.unit.audit.written_journals import NOON

JOURNAL = Actor("gateway", "journal")
Lines = list[bytes]


def lines_of(directory: Path) -> Lines:
    return [line for segment in segments(directory) for line in segment.path.read_bytes().splitlines(keepends=True)]


def replace_records(directory: Path, first: int, lines: Lines) -> None:
    """Throw every record away and put one segment in their place."""
    for segment in segments(directory):
        segment.path.unlink()
    (directory / f"segment-{first:012}.jsonl").write_bytes(b"".join(lines))


def chained(number: int, digest: bytes, *events: Event) -> Lines:
    """Write records as a forger does who knows the format: they follow from one another."""
    lines = []
    for offset, event in enumerate(events, 1):
        line, digest = finish(number + offset, encode(event), digest)
        lines.append(line)
    return lines


def behind_a_pruning(number: int, digest: bytes, *events: Event) -> Lines:
    """Write the beginning of a journal whose older records are said to have been pruned."""
    opened = Event("journal.opened", JOURNAL, detail={"previous_seq": number, "previous_hash": digest.hex()})
    pruned = Event("journal.pruned", JOURNAL, detail={"last_seq": number, "last_hash": digest.hex()})
    return chained(number, digest, opened, pruned, *events)


@pytest.fixture
def aged(directory: Path, event: MakeEvent, signer: Signer) -> Path:
    """Four sealed segments and an open one, 14 records, of which the first two segments were pruned."""
    journal = Journal(directory, segment_bytes=1)
    for day in range(2):
        journal.append(event(at=NOON + timedelta(days=day)))
    journal.close()
    signing(directory, signer).sign()
    removed = Journal(directory)
    prune(removed, signing(directory, signer), NOON + timedelta(days=36500), ALICE)
    removed.close()
    return directory


def grow(directory: Path, event: MakeEvent, count: int) -> None:
    journal = Journal(directory)
    for number in range(count):
        journal.append(event(detail={"n": number}))
    journal.close()


def kind_of(report: Report) -> str:
    return report.problem.kind if report.problem else report.unproven and "unproven"


@pytest.mark.attack("H2", "every record replaced behind a self-made journal.pruned, beyond the exported head")
@pytest.mark.parametrize("further", [0, 1, 10])
def test_a_pruning_that_nothing_signed_explains_no_gap(written: Path, event: MakeEvent, further: int) -> None:
    """The head cannot be compared any more, and that is a failure, not a note."""
    head = current_head(written, "gw/journal")
    replace_records(written, head.size + further + 1, behind_a_pruning(head.size + further, b"\7" * 32, event()))
    report = verify(written, head)
    assert not report.ok
    assert kind_of(report) in {"pruned-unsigned", "head-differs"}
    assert report.proven_seq == 0


@pytest.mark.attack("H2", "the gateway goes on behind forged records: it signs no head over them")
def test_the_gateway_signs_no_journal_that_does_not_continue_the_one_it_signed(
    written: Path, event: MakeEvent, signer: Signer
) -> None:
    signing(written, signer).sign()
    replace_records(written, 21, behind_a_pruning(20, b"\7" * 32, event()))
    grow(written, event, 3)
    with pytest.raises(JournalError) as caught:
        signing(written, signer).sign()
    assert caught.value.code == "journal.not-continued"
    head, _note = signing(written, signer).sign(anew=True)
    assert head.size == 26
    assert signing(written, signer).sign()[0].size == 26


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda ls: ls[:-2], "ends at record 8"),
        (lambda ls: [*ls[:8], ls[8].replace(b'"n":8', b'"n":9'), *ls[9:]], "record 9 was changed"),
        (lambda _: [], "ends at record 0"),
    ],
    ids=["cut", "edited", "emptied"],
)
def test_a_journal_that_was_cut_or_edited_since_the_last_head_is_not_signed(
    written: Path, signer: Signer, damage: Callable[[Lines], Lines], said: str
) -> None:
    signing(written, signer).sign()
    replace_records(written, 1, damage(lines_of(written)))
    with pytest.raises(JournalError, match=said):
        signing(written, signer).sign()


@pytest.mark.attack("H2", "the signing key exchanged")
def test_a_key_that_changed_signs_nothing_before_an_administrator_says_so(
    written: Path, signer: Signer, tmp_path: Path
) -> None:
    signing(written, signer).sign()
    other = Signer.create(tmp_path / "other", "gw/journal")
    with pytest.raises(JournalError, match=r"cannot be compared: the head is not signed by gw/journal"):
        signing(written, other).sign()
    signing(written, other).sign(anew=True)
    assert signing(written, other).sign()


def test_a_journal_that_is_not_whole_is_not_pruned(directory: Path, event: MakeEvent, signer: Signer) -> None:
    """What was tampered with is evidence; and no record says that it was removed."""
    journal = Journal(directory, segment_bytes=1)
    for day in range(3):
        journal.append(event(at=NOON + timedelta(days=day)))
    first = segments(directory)[0].path
    first.chmod(0o600)
    first.write_bytes(first.read_bytes().replace(b'"alice"', b'"carol"', 1))
    with pytest.raises(JournalError) as caught:
        prune(journal, signing(directory, signer), NOON + timedelta(days=36500), ALICE)
    journal.close()
    assert caught.value.code == "journal.not-whole"
    assert first.exists()
    assert "journal.pruned" not in {parse(line).code for line in lines_of(directory)}


def test_a_signed_pruning_explains_what_is_gone(aged: Path, event: MakeEvent, signer: Signer) -> None:
    """By its own head beside the journal, or by any later head that covers its record."""
    grow(aged, event, 2)
    later = current_head(aged, "gw/journal")
    assert verify(aged, kept=kept_heads(aged, signer.verifier)).ok
    assert verify(aged, later).ok
    assert kind_of(verify(aged)) == "pruned-unsigned"
    assert kind_of(verify(aged, kept=None)) == "unproven"


def test_a_head_older_than_what_was_kept_proves_nothing_and_says_so(
    written: Path, event: MakeEvent, signer: Signer
) -> None:
    """It is no finding against the journal, and no proof of it: a third answer."""
    old = Head("gw/journal", 2, bytes.fromhex(parse(lines_of(written)[1]).hash))
    sealing = Journal(written, segment_bytes=1)
    sealing.append(event())
    sealing.append(event())
    prune(sealing, signing(written, signer), NOON + timedelta(days=36500), ALICE)
    sealing.close()
    kept = kept_heads(written, signer.verifier)
    report = verify(written, old, kept=kept)
    assert (report.ok, report.problem, report.head_checked) == (False, None, False)
    assert "record 2 is older than the records kept" in report.unproven
    newer = current_head(written, "gw/journal")
    both = verify(written, old, newer, kept=kept)
    assert (both.ok, both.proven_seq) == (True, newer.size)
    assert any("1 older heads" in note for note in both.notes)


def test_pruning_cut_short_is_explained_and_removing_more_is_not(
    directory: Path, event: MakeEvent, signer: Signer, tmp_path: Path
) -> None:
    """A crash between two removals leaves more than the signed head says; never a finding."""
    journal = Journal(directory, segment_bytes=1)
    for day in range(4):
        journal.append(event(at=NOON + timedelta(days=day)))
    shutil.copytree(directory, tmp_path / "before")
    prune(journal, signing(directory, signer), NOON + timedelta(days=36500), ALICE)
    journal.close()
    shutil.copy(segments(tmp_path / "before")[-2].path, directory)
    kept = kept_heads(directory, signer.verifier)
    assert verify(directory, kept=kept).ok
    for _ in range(2):
        segments(directory)[0].path.unlink()
    assert not verify(directory, kept=kept).ok


@pytest.mark.attack("H2", "two heads that disagree, a head of another journal")
def test_heads_that_disagree_are_told(written: Path, signer: Signer) -> None:
    head = current_head(written, "gw/journal")
    contrary = replace(head, digest=b"\1" * 32)
    assert kind_of(verify(written, head, contrary)) == "heads-disagree"
    assert kind_of(verify(written, contrary)) == "head-differs"
    assert kind_of(verify(written, replace(head, size=0, digest=b"\1" * 32), head)) == "heads-disagree"
    assert kind_of(verify(written, replace(head, size=0, digest=bytes(32)))) == "unproven"


def test_every_head_is_compared_not_only_the_newest(written: Path) -> None:
    """Who can sign, but could not take back what was handed out, is found by the older one."""
    newest = current_head(written, "gw/journal")
    older = Head("gw/journal", 5, b"\2" * 32)
    assert kind_of(verify(written, older, newest)) == "head-differs"


OPENINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("no number", lambda line: line.replace(b'"previous_seq":0', b'"previous_seq":"x"')),
    ("negative", lambda line: line.replace(b'"previous_seq":0', b'"previous_seq":-4')),
    ("infinite", lambda line: line.replace(b'"previous_seq":0', b'"previous_seq":1e999')),
    ("no hash", lambda line: line.replace(b"0" * 64, b"zz")),
    ("short hash", lambda line: line.replace(b'"previous_seq":0', b'"previous_seq":4').replace(b"0" * 64, b"00")),
    ("no object", lambda line: line.replace(line[line.index(b'"detail"') :], b'"detail":[]}\n')),
    ("nested without end", lambda _: b"[" * 100_000 + b"\n"),
]


@pytest.mark.parametrize("forge", [row[1] for row in OPENINGS], ids=[row[0] for row in OPENINGS])
def test_an_opening_that_says_nonsense_is_a_finding(written: Path, forge: Callable[[bytes], bytes]) -> None:
    lines = lines_of(written)
    replace_records(written, 1, [forge(lines[0]), *lines[1:]])
    assert kind_of(verify(written)) == "unreadable"


@pytest.mark.parametrize("make", ["pipe", "link", "directory"])
def test_what_is_no_file_is_not_waited_for(written: Path, make: str) -> None:
    place = written / "segment-000000000011.jsonl"
    match make:
        case "pipe":
            os.mkfifo(place)
        case "link":
            place.symlink_to("/dev/zero")
        case _:
            place.mkdir()
    assert kind_of(verify(written)) == "unreadable"


def test_a_renamed_segment_is_found(written: Path) -> None:
    segments(written)[0].path.rename(written / "segment-000000000007.jsonl")
    assert kind_of(verify(written)) == "unlinked"


# Whatever is done to the files


@dataclass(frozen=True)
class Records:
    """A journal's directory, each of its records by number as it was written, and heads of it."""

    directory: Path
    lines: dict[int, bytes]
    heads: dict[int, Head]
    verifier: object
    kept: tuple[Head, ...]


def make_records(directory: Path, signer: Signer, name: str) -> Records:
    """Write five segments, prune the first of them, and sign a head after every record."""
    journal = Journal(directory, segment_bytes=1)
    lines: dict[int, bytes] = {}
    for number in range(5):
        journal.append(Event("key.added", Actor("admin", name), detail={"n": number}, at=NOON))
        lines |= {parse(line).number: line for line in lines_of(directory)}
        if number == 1:
            pruned = segments(directory)[0].path
            removal = Journal(directory, segment_bytes=1)
            prune(removal, signing(directory, signer), last_record(pruned).at + timedelta(microseconds=1), ALICE)
            removal.close()
    journal.close()
    lines |= {parse(line).number: line for line in lines_of(directory)}
    heads = {
        number: Head(signer.verifier.name, number, bytes.fromhex(parse(line).hash)) for number, line in lines.items()
    }
    return Records(directory, lines, heads, signer.verifier, tuple(kept_heads(directory, signer.verifier)))


@pytest.fixture(scope="module")
def two_journals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Records, Records]:
    """One journal, and another that belongs to the same gateway's name."""
    base = tmp_path_factory.mktemp("two")
    signer = Signer.create(base / "key", "gw/journal")
    one, two = (make_records(base / name / "journal", signer, name) for name in ("one", "two"))
    return one, two


Damage = Callable[[Path, Path, Callable[[int], int]], None]


def some_segment(directory: Path, pick: Callable[[int], int]) -> Path | None:
    known = segments(directory)
    return known[pick(len(known))].path if known else None


def edit(directory: Path, _other: Path, pick: Callable[[int], int]) -> None:
    if path := some_segment(directory, pick):
        content = bytearray(path.read_bytes())
        if content:
            content[pick(len(content))] ^= 1 << pick(8)
            path.write_bytes(content)


def cut(directory: Path, _other: Path, pick: Callable[[int], int]) -> None:
    """Cut a file anywhere, also at the end of a line."""
    if path := some_segment(directory, pick):
        content = path.read_bytes()
        lines = content.splitlines(keepends=True)
        whole = b"".join(lines[: pick(len(lines) + 1)])
        path.write_bytes(whole if pick(2) else content[: pick(len(content) + 1)])


def drop_file(directory: Path, _other: Path, pick: Callable[[int], int]) -> None:
    if path := some_segment(directory, pick):
        path.unlink()


def drop_ends(directory: Path, _other: Path, pick: Callable[[int], int]) -> None:
    """Remove some of the oldest or of the newest files."""
    known = segments(directory)
    count = pick(len(known) + 1)
    for segment in known[:count] if pick(2) else known[len(known) - count :]:
        segment.path.unlink()


def drop_lines(directory: Path, _other: Path, pick: Callable[[int], int]) -> None:
    if path := some_segment(directory, pick):
        lines = path.read_bytes().splitlines(keepends=True)
        start = pick(len(lines) + 1)
        path.write_bytes(b"".join(lines[:start] + lines[start + pick(4) :]))


def reorder(directory: Path, _other: Path, pick: Callable[[int], int]) -> None:
    if path := some_segment(directory, pick):
        lines = path.read_bytes().splitlines(keepends=True)
        if lines:
            moved = lines.pop(pick(len(lines)))
            lines.insert(pick(len(lines) + 1), moved)
            path.write_bytes(b"".join(lines))


def rename(directory: Path, _other: Path, pick: Callable[[int], int]) -> None:
    if path := some_segment(directory, pick):
        path.rename(directory / f"segment-{pick(40):012}.jsonl")


def splice(directory: Path, other: Path, pick: Callable[[int], int]) -> None:
    """Put a file of the other journal into this one: under its own name, or in another's place."""
    path, foreign = some_segment(directory, pick), some_segment(other, pick)
    if path and foreign:
        (directory / (foreign.name if pick(2) else path.name)).write_bytes(foreign.read_bytes())


def rechain(directory: Path, _other: Path, pick: Callable[[int], int]) -> None:
    """Change a record, and recompute everything behind it, openings included, as whoever knows the format can."""
    start, digest, number, changed = pick(60), None, 0, False
    for segment in segments(directory):
        lines = []
        for line in segment.path.read_bytes().splitlines():
            try:
                record = parse(line)
            except ValueError:
                return
            if digest is None:
                number = record.number - 1
                digest = bytes.fromhex(str(record.detail.get("previous_hash", ""))) or bytes(32)
            content = line[line.index(b'"time"') : -76]
            if record.code == "journal.opened":
                content = content.replace(str(record.detail.get("previous_hash")).encode(), digest.hex().encode())
            if number + 1 >= start and not changed:
                content, changed = content.replace(b'"reason":""', b'"reason":"forged"'), True
            number += 1
            made, digest = finish(number, content, digest)
            lines.append(made)
        segment.path.write_bytes(b"".join(lines))


def forge_pruned(directory: Path, _other: Path, pick: Callable[[int], int]) -> None:
    """Throw all away, and begin anywhere behind a self-made pruning; or put that in front of the files that stay."""
    known = segments(directory)
    number = pick(60)
    digest = bytes([pick(250)]) * 32
    if known and pick(2):
        try:
            follows = first_record(known[-1].path)
        except (ValueError, OSError):
            return
        number = follows.number - 3
        if number < 1:
            return
    if not known or not pick(3):
        lines = behind_a_pruning(number, digest, Event("login.allowed", ALICE))
        for segment in known:
            segment.path.unlink()
    else:
        lines = behind_a_pruning(number, digest)
        for segment in known[:-1]:
            segment.path.unlink()
    (directory / f"segment-{number + 1:012}.jsonl").write_bytes(b"".join(lines))


def replay(directory: Path, other: Path, pick: Callable[[int], int]) -> None:
    """Put the other journal, cut anywhere, in the place of this one."""
    for segment in segments(directory):
        segment.path.unlink()
    known = segments(other)
    for segment in known[: 1 + pick(len(known))]:
        shutil.copy(segment.path, directory)


DAMAGES: list[Damage] = [
    edit, cut, drop_file, drop_ends, drop_lines, reorder, rename, splice, rechain, forge_pruned, replay
]  # fmt: skip


def picker(numbers: list[int]) -> Callable[[int], int]:
    """Choose by the numbers given, over and over."""
    rest = iter(numbers * 50)
    return lambda below: next(rest, 0) % max(below, 1)


@pytest.mark.attack("H2", "files edited, cut, dropped, reordered, spliced, replayed, forged, in any combination")
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damages=st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=3),
    numbers=st.lists(st.integers(0, 2**16), min_size=4, max_size=12),
    signed_at=st.lists(st.integers(0, 2**16), min_size=1, max_size=3),
    keep_notes=st.booleans(),
)
@example(damages=[forge_pruned], numbers=[59, 7, 0, 0], signed_at=[2], keep_notes=True)
@example(damages=[rechain], numbers=[0, 0, 0, 0], signed_at=[1], keep_notes=False)
def test_nothing_that_was_done_to_the_files_is_called_proven(
    two_journals: tuple[Records, Records],
    damages: list[Damage],
    numbers: list[int],
    signed_at: list[int],
    keep_notes: bool,
) -> None:
    """Whatever verification calls proven is, byte for byte, what was written, up to the newest head at least."""
    original, other = two_journals
    choices = sorted(original.heads)
    heads = [original.heads[choices[number % len(choices)]] for number in signed_at]
    newest = max(head.size for head in heads)
    with TemporaryDirectory() as base:
        copy = Path(base) / "copy"
        shutil.copytree(original.directory, copy)
        for segment in segments(copy):
            segment.path.chmod(0o600)
        pick = picker(numbers)
        for damage in damages:
            damage(copy, other.directory, pick)
        report = verify(copy, *heads, kept=original.kept if keep_notes else ())
        if not report.ok:
            assert report.problem is not None or report.unproven
            return
        found = {parse(line).number: line for line in lines_of(copy) if line.endswith(b"\n")}
    assert report.proven_seq >= newest
    assert report.first_seq <= max(original.kept[-1].pruned.last_seq + 1, 1)
    for number in range(report.first_seq, report.proven_seq + 1):
        assert found[number] == original.lines[number], number


@pytest.mark.attack("H2", "an intact copy against every head of its past")
def test_an_untouched_journal_is_proven_by_every_head_that_it_can_be_compared_with(
    two_journals: tuple[Records, Records],
) -> None:
    """And by none that it cannot."""
    original, _other = two_journals
    first = segments(original.directory)[0].first
    for size, head in original.heads.items():
        report = verify(original.directory, head, kept=original.kept)
        assert report.problem is None
        assert report.ok == (size >= first - 1), size


def test_a_pruned_head_is_read_back(signer: Signer) -> None:
    head = Head("gw/journal", 9, b"\3" * 32, pruned=Pruned(4, b"\4" * 32))
    assert open_head(signer.sign(head), signer.verifier) == head
