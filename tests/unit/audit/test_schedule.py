"""Heads on a schedule, and pruning: what leaves the host, and what may be forgotten."""

import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.audit.event import Event
from gateway.audit.head_signing import current_head, kept_heads
from gateway.audit.heads import Signer, last_note, open_head
from gateway.audit.journal import Journal
from gateway.audit.retention import Removal, prune
from gateway.audit.schedule import HeadKeeper, to_command, to_file
from gateway.audit.segments import segments
from gateway.audit.verify import verify
from gateway.errors import JournalError
from tests.unit.audit.conftest import ALICE, MakeEvent, signing
from tests.unit.audit.written_journals import NOON


def test_a_head_in_a_file_proves_the_journal(written: Path, signer: Signer, tmp_path: Path) -> None:
    out = tmp_path / "heads"
    keeper = HeadKeeper(signing(written, signer), [to_file(out)])
    assert keeper.sign_now() is not None
    head = open_head(last_note(out.read_text()), signer.verifier)
    assert (verify(written, head).head_checked, head.size) == (True, 10)


def test_a_head_is_signed_again_only_when_the_journal_moved(written: Path, signer: Signer, event: MakeEvent) -> None:
    notes: list[str] = []
    keeper = HeadKeeper(signing(written, signer), [notes.append])
    keeper.sign_now()
    assert keeper.sign_now() is None
    journal = Journal(written)
    journal.append(event())
    journal.close()
    keeper.sign_now()
    assert [open_head(note, signer.verifier).size for note in notes] == [10, 11]


def test_a_command_gets_the_head_on_its_input(written: Path, signer: Signer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())"
    note = HeadKeeper(signing(written, signer), [to_command([sys.executable, "-c", script, str(out)])]).sign_now()
    assert out.read_text() == note


def test_a_sink_that_fails_does_not_keep_the_others_from_the_head(written: Path, signer: Signer) -> None:
    """And the next time everybody is tried again, since that head counts as not delivered."""
    notes: list[str] = []
    keeper = HeadKeeper(signing(written, signer), [to_command(["false"]), notes.append])
    for _ in range(2):
        with pytest.raises(JournalError) as caught:
            keeper.sign_now()
        assert caught.value.code == "head.not-delivered"
    assert len(notes) == 2


def test_the_keeper_signs_by_itself_and_once_more_at_the_end(written: Path, signer: Signer, event: MakeEvent) -> None:
    signed = threading.Event()
    notes: list[str] = []

    def sink(note: str) -> None:
        notes.append(note)
        signed.set()

    keeper = HeadKeeper(signing(written, signer), [sink], interval_seconds=0.01)
    keeper.start()
    assert signed.wait(10)
    keeper.stop()
    assert open_head(notes[-1], signer.verifier).size == 10


def test_a_failure_of_the_schedule_is_reported(tmp_path: Path, signer: Signer) -> None:
    failed = threading.Event()
    seen: list[Event] = []

    def report(event: Event) -> None:
        seen.append(event)
        failed.set()

    keeper = HeadKeeper(signing(tmp_path / "none", signer), [], interval_seconds=0.01, on_failure=report)
    keeper.start()
    assert failed.wait(10)
    keeper.stop()
    assert seen[0].code == "journal.head-failed"


def test_the_head_of_a_journal_between_two_segments_is_its_last_record(written: Path) -> None:
    (written / "segment-000000000011.jsonl").touch()
    assert current_head(written, "x").size == 10


@pytest.fixture
def three_days(directory: Path, event: MakeEvent) -> Path:
    """Three sealed segments and an open one. Records 1-3, 4-6, 7-9, then 10 and 11."""
    journal = Journal(directory, segment_bytes=1)
    for day in range(3):
        journal.append(event(at=NOON + timedelta(days=day)))
    journal.close()
    journal = Journal(directory)
    journal.append(event(at=NOON + timedelta(days=3)))
    journal.close()
    return directory


@pytest.mark.emits("journal.pruned")
def test_pruning_leaves_a_chain_that_verifies(three_days: Path, event: MakeEvent, signer: Signer) -> None:
    """The seals carry the time they were made, so everything sealed until now goes; the open segment stays."""
    old_head = current_head(three_days, "x")
    journal = Journal(three_days)
    removal = prune(journal, signing(three_days, signer), event().at + timedelta(days=3650), ALICE)
    journal.close()
    report = verify(three_days, old_head, kept=kept_heads(three_days, signer.verifier))
    assert [path.name for path in removal.paths] == [f"segment-{first:012}.jsonl" for first in (1, 4, 7)]
    assert (report.ok, report.first_seq, report.last_seq, report.head_checked) == (True, 10, 12, True)
    assert prune(journal, signing(three_days, signer), NOON, ALICE) == Removal()


def test_removing_more_than_was_announced_is_found(three_days: Path, event: MakeEvent, signer: Signer) -> None:
    journal = Journal(three_days, segment_bytes=1)
    prune(journal, signing(three_days, signer), event().at + timedelta(days=3650), ALICE)
    journal.append(event())
    journal.close()
    kept = kept_heads(three_days, signer.verifier)
    assert verify(three_days, kept=kept).ok
    segments(three_days)[0].path.unlink()
    problem = verify(three_days, kept=kept).problem
    assert problem is not None
    assert problem.kind == "pruned-unannounced"
