"""The passive reader of sftp: the same events however bytes are cut, and no memory for what is long or malformed."""

import tracemalloc
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.event import Event
from gateway.audit.record import encode
from gateway.model import Actor, EnvironmentRef, Fingerprint, PublicKey, User, UserName
from gateway.ssh.connection_registry import ClientIdentity
from gateway.ssh.observers.sftp_journal import HELD_MAX_BYTES, PENDING_MAX, SftpJournal
from gateway.ssh.observers.sftp_packets import HEAD_BYTES, Framer

IDENTITY = ClientIdentity(
    EnvironmentRef(UserName("alice")),
    User(UserName("alice"), 1000, datetime(2026, 5, 3, tzinfo=UTC)),
    PublicKey(Fingerprint("SHA256:a"), "ssh-ed25519", 256, ""),
    "192.0.2.7",
)


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def packet(kind: int, number: int, *fields: bytes) -> bytes:
    return string(bytes([kind]) + number.to_bytes(4) + b"".join(fields))


def observer() -> tuple[SftpJournal, list[Event]]:
    events: list[Event] = []
    return SftpJournal(IDENTITY, events.append), events


STORY = [
    ("typed", packet(3, 1, string(b"/data/x\xff"), (0x1A).to_bytes(4), bytes(4))),
    ("shown", packet(102, 1, string(b"H1"))),
    ("typed", packet(6, 2, string(b"H1"), bytes(8), string(b"z" * 20_000))),
    ("shown", packet(101, 2, bytes(4), string(b""), string(b""))),
    ("typed", packet(5, 3, string(b"H1"), bytes(8), (50).to_bytes(4))),
    ("shown", packet(103, 3, string(b"y" * 50))),
    ("typed", packet(4, 4, string(b"H1"))),
    ("typed", packet(13, 5, string(b"/gone"))),
    ("shown", packet(101, 5, (2).to_bytes(4), string(b"no"), string(b""))),
    ("typed", packet(200, 6, string(b"posix-rename@openssh.com"), string(b"/a"), string(b"/b"))),
    ("shown", packet(101, 6, bytes(4), string(b""), string(b""))),
]
TOLD = [
    ("sftp.opened", {"path": "/data/x\\xff", "mode": "write", "ok": True}),
    ("sftp.closed", {"path": "/data/x\\xff", "mode": "write", "read_bytes": 50, "written_bytes": 20_000}),
    ("sftp.removed", {"path": "/gone", "ok": False}),
    ("sftp.renamed", {"path": "/a", "target": "/b", "ok": True}),
]


@settings(deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_events_do_not_depend_on_how_the_bytes_are_cut(sizes: list[int]) -> None:
    """A write's content is passed over, its length is counted."""
    watching, events = observer()
    for direction, data in STORY:
        place = turn = 0
        while place < len(data):
            size = sizes[turn % len(sizes)]
            getattr(watching, direction)(data[place : place + size])
            place, turn = place + size, turn + 1
    assert [(event.code, event.detail) for event in events] == TOLD


@pytest.mark.attack("D6", "malformed sftp packets before the observer of file operations")
@settings(deadline=None)
@given(st.lists(st.binary(max_size=2000), max_size=30))
def test_nothing_malformed_is_an_error(blocks: list[bytes]) -> None:
    """Whatever a client sends is the environment's to refuse."""
    watching, _events = observer()
    for data in blocks:
        watching.typed(data)
        watching.shown(data)
    watching.ended()


@pytest.mark.attack("D6", "an sftp packet that claims to be huge")
def test_a_packet_that_claims_to_be_huge_is_not_kept() -> None:
    """Only its head is; the rest is passed over however long it is."""
    framer = Framer()
    block = b"x" * (1 << 20)
    assert list(framer.feed((0xFFFFFFFF).to_bytes(4))) == []
    tracemalloc.start()
    seen = [packet for _ in range(64) for packet in framer.feed(block)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(one.head) for one in seen] == [HEAD_BYTES - 1]
    assert peak < 4 * HEAD_BYTES


@pytest.mark.attack("D6", "sftp requests without end and without answers")
def test_requests_that_are_never_answered_are_forgotten() -> None:
    """And so are handles that are never closed; what is remembered is bounded."""
    watching, _events = observer()
    for number in range(3 * PENDING_MAX):
        watching.typed(packet(3, number, string(b"/f"), bytes(4), bytes(4)))
        if number % 2:
            watching.shown(packet(102, number, string(number.to_bytes(4))))
    assert len(watching._asked) <= PENDING_MAX
    assert len(watching._files) <= PENDING_MAX


class Purse:
    """A budget that only adds up."""

    def __init__(self) -> None:
        self.charged = 0
        self.most = 0

    def debt_seconds(self, _actor: Actor) -> float:
        return 0.0

    def hold_seconds(self, _actor: Actor) -> float:
        return 0.0

    def charge(self, _actor: Actor, size_bytes: int) -> None:
        self.charged += size_bytes
        self.most = max(self.most, self.charged)


@pytest.mark.attack("H5", "requests of sftp, small, to make large records")
def test_what_requests_will_take_in_the_journal_is_charged_when_they_are_read() -> None:
    """Before the environment has answered, so that the channel can wait; and given back, for then the event pays."""
    purse, events = Purse(), []
    journal = SftpJournal(IDENTITY, events.append, purse)
    for number in range(100):
        journal.typed(packet(18, number, string(b"a"), string(b"\xff" * 1020)))
    assert purse.charged > 100 * 1000
    for number in range(100):
        journal.shown(packet(101, number, (2).to_bytes(4), string(b"no"), string(b"")))
    assert (purse.charged, len(events)) == (0, 100)


@pytest.mark.parametrize("unit", [b"\xff", b"\x01", "\U0001f980".encode(), b"a"], ids=["bytes", "control", "crab", "a"])
def test_a_long_path_is_cut_and_named_by_its_hash(unit: bytes) -> None:
    """However its bytes are escaped, a record stays small; the hash still says which path it was."""
    path = (unit * 4096)[:4096]
    journal, events = observer()
    journal.typed(packet(13, 1, string(path)))
    journal.shown(packet(101, 1, bytes(4), string(b""), string(b"")))
    assert len(encode(events[0])) < 1600
    assert sha256(path).hexdigest()[:16] in str(events[0].detail["path"])


@pytest.mark.attack("H5", "more requests than are remembered, never answered")
def test_what_is_never_answered_is_told_all_the_same() -> None:
    """Not even a request whose number is used again is forgotten in silence."""
    journal, events = observer()
    for number in range(PENDING_MAX + 100):
        journal.typed(packet(13, number, string(b"/x")))
    journal.typed(packet(13, 200, string(b"/again")))
    journal.ended()
    assert len(events) == PENDING_MAX + 101
    assert {event.detail["ok"] for event in events} == {None}


@pytest.mark.attack("E29", "sftp requests with long paths that are never answered, handles of 16 KiB")
def test_what_is_remembered_is_bounded_by_bytes() -> None:
    """Long paths that no answer frees, and handles of an sshd of the user's own; everything is told in the end."""
    watching, events = observer()
    tracemalloc.start()
    try:
        for number in range(3000):
            path = b"/" + number.to_bytes(4) * 400
            watching.typed(packet(18, number, string(path), string(path[::-1])))
        for number in range(3000):
            watching.typed(packet(3, number, string(b"/f" + b"\xf0\x9f\x90\x8d" * 150), (2).to_bytes(4), bytes(4)))
            watching.shown(packet(102, number, string(number.to_bytes(4) * 4000)))
        assert watching._asked.held_bytes <= HELD_MAX_BYTES
        assert watching._files.held_bytes <= HELD_MAX_BYTES
        codes = Counter(event.code for event in events)
        events.clear()
        assert tracemalloc.get_traced_memory()[0] < 3 * HELD_MAX_BYTES
    finally:
        tracemalloc.stop()
    watching.ended()
    codes += Counter(event.code for event in events)
    assert codes == {"sftp.renamed": 3000, "sftp.opened": 3000, "sftp.closed": 3000}


def test_a_handle_that_is_given_twice_closes_the_first_file() -> None:
    """In the journal, where each opened file has its end."""
    watching, events = observer()
    for number in (1, 2):
        watching.typed(packet(3, number, string(b"/%d" % number), (2).to_bytes(4), bytes(4)))
        watching.shown(packet(102, number, string(b"H")))
    watching.ended()
    assert [(event.code, event.detail["path"]) for event in events] == [
        ("sftp.opened", "/1"),
        ("sftp.closed", "/1"),
        ("sftp.opened", "/2"),
        ("sftp.closed", "/2"),
    ]
