"""The journal on a file system without a free byte: what ends and what administrators do has room of its own."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.audit.chain import KEPT_BYTES, RESERVE_BYTES
from gateway.audit.event import Event
from gateway.audit.event_budget import EventBudget
from gateway.audit.journal import Journal
from gateway.audit.read import stream
from gateway.audit.recording import Recording, frames
from gateway.audit.segments import segments
from gateway.audit.verify import verify
from gateway.errors import JournalError
from gateway.model import Actor
from tests.support.small_disk import KINDS, SmallDisk, small_disk

ALICE = Actor("user", "alice", "SHA256:" + "a" * 43, "192.0.2.7")
ADMIN = Actor("admin", "root")


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path, 48, request.param) as disk:
        yield disk


def event(code: str, actor: Actor = ALICE, **detail: str) -> Event:
    decision = "allowed" if code.endswith(".allowed") else ""
    return Event(code, actor, "alice", decision, detail=dict(detail))  # type: ignore[arg-type]


def use_up(journal: Journal) -> int:
    """Write a user's new beginnings until they are refused; return how many were acknowledged."""
    acknowledged = 0
    while True:
        waiting: list[Future[None]] = [journal.submit(event("forward.allowed", host="h" * 2000)) for _ in range(500)]
        refused = [one.exception() for one in waiting if one.exception()]
        acknowledged += len(waiting) - len(refused)
        if refused:
            assert {getattr(one, "code", "") for one in refused} == {"journal.no-space"}
            return acknowledged


@pytest.mark.attack("H6", "a full disk: the journal's own room is for ends, revocations and administrators")
def test_users_are_refused_and_what_ends_is_written(disk: SmallDisk) -> None:
    """Nothing acknowledged is lost, and the journal verifies; with room back users begin again by themselves."""
    directory = disk.path / "journal"
    journal = Journal(directory)
    journal.append(event("login.allowed"))
    fill = disk.fill()
    acknowledged = use_up(journal)
    assert acknowledged > (RESERVE_BYTES - KEPT_BYTES) // 3000
    assert journal.is_short
    for number in range(100):
        journal.append(event("session.closed", number=str(number)))
        journal.append(event("user.disabled", ADMIN, user="alice"))
    codes = [record.code for record in stream(directory)]
    assert codes.count("forward.allowed") == acknowledged
    assert (codes.count("session.closed"), codes.count("user.disabled")) == (100, 100)
    assert verify(directory).ok
    fill.unlink()
    journal.append(event("login.allowed"))
    assert not journal.is_short
    disk.fill()
    for number in range(100):
        journal.append(event("session.closed", number=str(number)))
    journal.close()
    assert verify(directory).ok


def test_a_second_process_has_the_same_room(disk: SmallDisk) -> None:
    """An administrator's command writes into the segment that the gateway has set aside."""
    directory = disk.path / "journal"
    serving = Journal(directory)
    serving.append(event("login.allowed"))
    disk.fill()
    command = Journal(directory)
    command.append(event("user.disabled", ADMIN))
    command.close()
    serving.append(event("connection.closed"))
    serving.close()
    assert [record.code for record in stream(directory)][-2:] == ["user.disabled", "connection.closed"]


@pytest.mark.parametrize("full_before", ["the seal", "the next segment"])
def test_a_segment_is_sealed_only_when_the_next_one_has_its_room(disk: SmallDisk, full_before: str) -> None:
    """Wherever the disk becomes full, what must be written is."""
    directory = disk.path / "journal"
    journal = Journal(directory, segment_bytes=2000)
    journal.append(event("login.allowed"))
    if full_before == "the next segment":
        journal.append(event("session.opened", command="c" * 2000))
        assert [record.code for record in stream(directory)][-1] == "journal.sealed"
    disk.fill()
    for _ in range(20):
        journal.append(event("session.closed", reason="r" * 1000))
    journal.close()
    assert len(segments(directory)) == (2 if full_before == "the next segment" else 1)
    assert verify(directory).ok


def test_a_sealed_segment_gives_its_room_back(disk: SmallDisk) -> None:
    journal = Journal(disk.path / "journal", segment_bytes=1)
    for _ in range(20):
        journal.append(event("login.allowed"))
    journal.close()
    assert disk.free_bytes > (48 << 20) - 3 * RESERVE_BYTES


@pytest.mark.attack("H6", "a full disk, and strangers who are refused without end")
def test_refused_logins_are_counted_while_the_disk_is_full_and_told_afterwards(disk: SmallDisk) -> None:
    """They take nothing of the room that is left."""
    directory = disk.path / "journal"
    journal = Journal(directory)
    budget = EventBudget(journal, count_seconds=0.05)
    journal.append(event("login.allowed"))
    fill = disk.fill()
    use_up(journal)
    before = segments(directory)[-1].path.stat().st_size
    for number in range(5000):
        budget.submit(
            Event("login.refused", Actor("user", "root", "", f"10.0.0.{number % 250}"), decision="denied", reason="no")
        )
    assert segments(directory)[-1].path.stat().st_size == before
    assert budget.hold_seconds(ALICE) > 0
    fill.unlink()
    journal.look_for_room()
    budget.flush()
    journal.close()
    told = [record for record in stream(directory) if record.code == "login.refused"]
    assert sum(int(record.detail.get("count") or 1) for record in told) == 5000


def test_a_disk_that_is_full_from_the_start_is_said(disk: SmallDisk) -> None:
    (disk.path / "journal").mkdir()
    disk.fill()
    journal = Journal(disk.path / "journal")
    with pytest.raises(JournalError) as caught:
        journal.append(event("login.allowed"))
    assert caught.value.code in {"journal.unwritable", "journal.no-space"}
    journal.close()


def show_without_end(recording: Recording) -> None:
    while not recording.is_full:
        recording.output(b"after\r\n" * 1000)


def test_a_recording_on_a_full_disk_ends_with_a_reason_and_plays_up_to_there(disk: SmallDisk) -> None:
    """A session that must be recorded does not go on unseen; what was recorded stays."""
    path = disk.path / "one.cast"
    recording = Recording(path, width=80, height=24, began_at=datetime.now(UTC))
    recording.output(b"before\r\n" * 2000)
    disk.fill()
    with pytest.raises(JournalError) as caught:
        show_without_end(recording)
    assert caught.value.code == "recording.unwritable"
    with suppress(JournalError):
        recording.close()
    assert "before" in "".join(text for _pause, text in frames(path))
    with pytest.raises(JournalError, match="cannot be recorded"):
        Recording(disk.path / "two.cast", width=80, height=24, began_at=datetime.now(UTC)).close()
