"""The journal: durable, in order, from many threads and processes, whole again after a crash or a full disk."""

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.event import Event
from gateway.audit.head_signing import kept_heads
from gateway.audit.heads import Signer
from gateway.audit.journal import Journal
from gateway.audit.read import Filter, stream
from gateway.audit.retention import prune
from gateway.audit.segments import segments, torn_paths
from gateway.audit.verify import verify
from gateway.errors import JournalError
from tests.unit.audit.conftest import ALICE, MakeEvent, signing


def codes(directory: Path) -> list[str]:
    return [record.code for record in stream(directory)]


def test_an_event_is_on_disk_when_its_future_is_done(directory: Path, journal: Journal, event: MakeEvent) -> None:
    """What was synced is the line itself: the sync sees it in the file."""
    seen: list[bytes] = []

    def sync(descriptor: int) -> None:
        seen.append(os.pread(descriptor, 2**20, 0))

    watched = Journal(directory, sync=sync)
    watched.append(event(detail={"host": "localhost"}))
    watched.close()
    assert b'"detail":{"host":"localhost"}' in seen[-1]


def test_nothing_is_opened_and_no_thread_runs_before_the_first_event(directory: Path) -> None:
    before = threading.active_count()
    Journal(directory).close()
    assert threading.active_count() == before
    assert not directory.exists()


def test_files_are_the_owners_alone(directory: Path, journal: Journal, event: MakeEvent) -> None:
    journal.append(event())
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())]
    assert modes == [0o700, 0o600]


@pytest.mark.attack("B3", "control characters, bidi marks and line breaks on their way into the journal")
def test_names_from_outside_are_escaped_in_the_file(directory: Path, journal: Journal, event: MakeEvent) -> None:
    """No control character, no bidi mark, no line break reaches a line; reading gives back what was sent."""
    name = 'evil\n{"v":1}\x1b[2J\u202e\x7f\x00\ud800'
    journal.append(event(environment=name, detail={"host": name, name: "key"}))
    content = segments(directory)[0].path.read_bytes()
    assert content.isascii()
    assert content.count(b"\n") == 2
    assert all(32 <= byte < 127 or byte == 10 for byte in content)
    record = list(stream(directory))[-1]
    assert (record.environment, record.detail["host"], record.detail[name]) == (name, name, "key")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None, 3, 2.5, "x"])
def test_every_value_is_valid_json(directory: Path, journal: Journal, event: MakeEvent, value: object) -> None:
    journal.append(event(detail={"value": value}))
    read = list(stream(directory))[-1].detail["value"]
    assert read == (str(value) if value != value or value == float("inf") else value)  # noqa: PLR0124  # NaN is unequal


def test_a_long_text_is_cut_and_says_so(directory: Path, journal: Journal, event: MakeEvent) -> None:
    journal.append(event(detail={"command": "x" * 100_000}))
    command = str(list(stream(directory))[-1].detail["command"])
    assert len(command) < 4200
    assert command.endswith("(100000 characters)")


def test_threads_share_one_chain(directory: Path, journal: Journal, event: MakeEvent) -> None:
    def work(name: int) -> None:
        for number in range(50):
            journal.append(event(detail={"n": number, "thread": name}))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(directory).ok
    written = Counter(record.detail["thread"] for record in stream(directory, Filter(action="forward")))
    assert written == dict.fromkeys(range(8), 50)


def _write_many(directory: Path, name: int, count: int) -> None:
    journal = Journal(directory, segment_bytes=20_000)
    for number in range(count):
        journal.append(Event("forward.allowed", ALICE, detail={"n": number, "process": name}))
    journal.close()


def test_processes_share_one_chain_across_segments(directory: Path) -> None:
    """Each sees what the others wrote, sealed and opened; nobody's order is lost."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_many, args=(directory, name, 150)) for name in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    report = verify(directory)
    assert (report.ok, report.problem) == (True, None)
    assert len(segments(directory)) > 3
    records = list(stream(directory, Filter(action="forward")))
    for name in range(3):
        assert [record.detail["n"] for record in records if record.detail["process"] == name] == list(range(150))


def test_a_forked_child_writes_too(directory: Path, journal: Journal, event: MakeEvent) -> None:
    journal.append(event(detail={"who": "parent"}))
    child = os.fork()
    if child == 0:
        journal.append(event(detail={"who": "child"}))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    journal.append(event(detail={"who": "parent again"}))
    assert [record.detail["who"] for record in stream(directory, Filter(action="forward"))] == [
        "parent",
        "child",
        "parent again",
    ]
    assert verify(directory).ok


def test_a_full_disk_fails_the_event_and_leaves_no_trace_of_it(directory: Path, event: MakeEvent) -> None:
    full = False

    def sync(_descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = Journal(directory, sync=sync)
    journal.append(event(detail={"n": 1}))
    full = True
    with pytest.raises(JournalError, match="No space left") as caught:
        journal.append(event(detail={"n": 2}))
    assert caught.value.code == "journal.unwritable"
    full = False
    journal.append(event(detail={"n": 3}))
    journal.close()
    assert [record.detail["n"] for record in stream(directory, Filter(action="forward"))] == [1, 3]
    assert verify(directory).ok


def test_a_place_that_cannot_be_written_fails_the_event(event: MakeEvent) -> None:
    """Where no directory can be made, no event counts as recorded."""
    journal = Journal(Path("/dev/full/journal"))
    with pytest.raises(JournalError) as caught:
        journal.append(event())
    assert caught.value.code == "journal.unwritable"
    journal.close()


def test_a_waiter_that_gives_up_does_not_stop_the_writer(journal: Journal, event: MakeEvent) -> None:
    future: Future[None] = journal.submit(event())
    assert not future.cancel()
    journal.append(event())


def test_a_closed_journal_takes_nothing_and_loses_nothing(directory: Path, event: MakeEvent) -> None:
    journal = Journal(directory)
    futures = [journal.submit(event(detail={"n": number})) for number in range(100)]
    journal.close()
    journal.close()
    assert all(future.result() is None for future in futures)
    with pytest.raises(JournalError):
        journal.append(event())
    assert verify(directory).records == 101


@pytest.mark.emits("journal.repaired")
@pytest.mark.attack("H4", "a crash in the middle of a record")
@pytest.mark.parametrize("torn", [b'{"v":1,"seq":11,"ti', b"\0" * 4096, b'{"v":1,"seq":11,\0\0\0\0\0\0\n\0\0'])
def test_a_torn_tail_is_moved_aside_and_marked(written: Path, event: MakeEvent, torn: bytes) -> None:
    """A crash in the middle of a write leaves bytes that were never acknowledged: kept, named, out of the chain."""
    with segments(written)[0].path.open("ab") as file:
        file.write(torn)
    journal = Journal(written)
    journal.append(event(detail={"n": "after"}))
    journal.close()
    assert verify(written).ok
    assert codes(written)[-2:] == ["journal.repaired", "forward.allowed"]
    repaired = next(stream(written, Filter(action="journal.repaired")))
    assert repaired.detail["bytes"] == len(torn)
    assert [path.read_bytes() for path in torn_paths(written)] == [torn]


def test_a_tail_changed_by_hand_is_not_taken_for_torn(written: Path, event: MakeEvent) -> None:
    """A whole line that does not follow is somebody's edit: the journal refuses to build on it."""
    path = segments(written)[0].path
    path.write_bytes(path.read_bytes().replace(b'"n":9', b'"n":8'))
    journal = Journal(written)
    with pytest.raises(JournalError) as caught:
        journal.append(event())
    assert caught.value.code == "journal.damaged"
    journal.close()


def test_a_crash_between_two_segments_is_bridged(written: Path, event: MakeEvent) -> None:
    """An empty newest segment is filled; it follows the one before."""
    (written / "segment-000000000011.jsonl").touch(0o600)
    journal = Journal(written)
    journal.append(event())
    journal.close()
    report = verify(written)
    assert (report.ok, report.records) == (True, 12)


def test_a_journal_removed_while_open_is_not_begun_anew_in_silence(directory: Path, event: MakeEvent) -> None:
    journal = Journal(directory)
    journal.append(event())
    segments(directory)[0].path.unlink()
    with pytest.raises(JournalError) as caught:
        journal.append(event())
    assert caught.value.code == "journal.damaged"
    journal.close()


def test_an_idle_process_goes_on_behind_what_others_sealed_and_pruned(
    directory: Path, event: MakeEvent, signer: Signer
) -> None:
    """Of several workers one may write nothing for longer than the journal is kept."""
    idle, busy = (Journal(directory, segment_bytes=1) for _ in range(2))
    idle.append(event())
    busy.append(event())
    assert prune(busy, signing(directory, signer), datetime.now(UTC) + timedelta(days=1), ALICE).paths
    idle.append(event())
    busy.append(event())
    for journal in (idle, busy):
        journal.close()
    assert verify(directory, kept=kept_heads(directory, signer.verifier)).ok


@pytest.mark.emits("journal.opened", "journal.sealed")
def test_segments_are_sealed_by_size_and_by_age(directory: Path, event: MakeEvent) -> None:
    by_size = Journal(directory, segment_bytes=1)
    by_size.append(event())
    by_size.append(event())
    by_size.close()
    by_age = Journal(directory, segment_age=timedelta(0))
    by_age.append(event())
    by_age.close()
    assert codes(directory) == ["journal.opened", "forward.allowed", "journal.sealed"] * 3
    assert [stat.S_IMODE(segment.path.stat().st_mode) for segment in segments(directory)] == [0o400] * 3
    assert verify(directory).ok


def _write_as(uid: int, directory: Path, count: int) -> int:
    """Write in a forked child under another uid, a journal for each event; return its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.setgid(uid)
        os.setuid(uid)
        for _ in range(count):
            journal = Journal(directory, segment_bytes=1)
            journal.append(Event("forward.allowed", ALICE))
            journal.close()
        code = 0
    finally:
        os._exit(code)


@pytest.fixture
def service_uid() -> int:
    """The uid a gateway might run under; one's own where the tests do not run as root."""
    return 64_999 if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def service_directory(service_uid: int) -> Iterator[Path]:
    """A directory of the gateway's user that this user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="devgw-test-") as outer:
        directory = Path(outer) / "journal"
        directory.mkdir(0o700)
        for path in (Path(outer), directory):
            os.chown(path, service_uid, -1)
        yield directory


def test_an_ordinary_user_goes_on_after_a_seal(service_directory: Path, service_uid: int) -> None:
    """A sealed segment is read-only even for its owner; the next process must be able to follow it."""
    assert _write_as(service_uid, service_directory, 3) == 0
    assert (verify(service_directory).ok, len(segments(service_directory))) == (True, 3)


def test_an_administrators_command_does_not_lock_the_gateway_out(
    service_directory: Path, service_uid: int, event: MakeEvent
) -> None:
    """What root writes belongs to the directory's owner."""
    journal = Journal(service_directory)
    journal.append(event("key.added"))
    journal.close()
    assert _write_as(service_uid, service_directory, 2) == 0
    assert {path.stat().st_uid for path in service_directory.iterdir()} == {service_uid}


KILLED = """
import sys
from pathlib import Path
from gateway.audit.journal import Journal
from gateway.audit.event import Event
from gateway.model import Actor
journal = Journal(Path(sys.argv[1]))
number = 0
while True:
    batch = [journal.submit(Event("forward.allowed", Actor("user", "a"), detail={"n": number + i})) for i in range(50)]
    for future in batch:
        future.result()
    number += 50
    print(number, flush=True)
"""


@pytest.mark.attack("F6", "the gateway is killed with SIGKILL: the chain still verifies")
def test_whatever_was_acknowledged_survives_kill_9(directory: Path, event: MakeEvent) -> None:
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(directory)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(20)][-1]
    writer.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
    writer.wait(timeout=60)
    journal = Journal(directory)
    journal.append(event("gateway.started"))
    journal.close()
    assert verify(directory).ok
    numbers = [record.detail["n"] for record in stream(directory, Filter(action="forward"))]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= acknowledged


def test_the_lag_grows_while_a_disk_hangs_and_is_the_last_batchs_afterwards(directory: Path, event: MakeEvent) -> None:
    """Who watches the gateway sees a disk that answers nobody, and not only one that has answered late."""
    let_go, syncing = threading.Event(), threading.Event()

    def hang(_descriptor: int) -> None:
        syncing.set()
        assert let_go.wait(30)

    journal = Journal(directory, sync=hang)
    try:
        durable = journal.submit(event())
        assert syncing.wait(30)
        first = journal.lag_seconds()
        assert 0 < first < journal.lag_seconds()
        let_go.set()
        durable.result(30)
    finally:
        let_go.set()
        journal.close()
    assert journal.lag_seconds() == journal.lag_seconds() >= first
