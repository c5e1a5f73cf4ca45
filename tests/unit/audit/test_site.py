"""The journals of several gateways of one site, read as one and proved one by one."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest

from gateway.audit.event import Event
from gateway.audit.head_key import HeadKey
from gateway.audit.head_signing import HeadSigner
from gateway.audit.heads import open_head
from gateway.audit.journal import Journal
from gateway.audit.presence import stays_in
from gateway.audit.read import Filter, last_of_each, stream
from gateway.audit.site import missing_journals, own_verifiers, verify_each
from gateway.audit.store_comparison import compare
from gateway.errors import JournalError
from gateway.model import GATEWAY, Actor

ALICE = Actor("user", "alice", "SHA256:x", "192.0.2.7")
NAMES = ("gw1", "gw2")


class Site:
    """Two gateways' journals, and the key that they have in common."""

    def __init__(self, root: Path) -> None:
        self.root = root / "gateways"
        self.places = {name: self.root / name / "journal" for name in NAMES}
        self.journals = {name: Journal(place) for name, place in self.places.items()}
        self.keys = {name: HeadKey(root / "keys", name, self.root / name) for name in NAMES}
        self.signers = {
            name: HeadSigner(place, lambda one=name: self.keys[one].ensure("lab/devgw"), self.root / name / "last")
            for name, place in self.places.items()
        }

    def write(self, name: str, code: str, environment: str = "", actor: Actor = GATEWAY, **detail: object) -> None:
        self.journals[name].append(Event(code, actor, environment, detail=detail))

    def close(self) -> None:
        for journal in self.journals.values():
            journal.close()


@pytest.fixture
def site(tmp_path: Path):
    made = Site(tmp_path)
    yield made
    made.close()


def test_records_of_all_come_in_the_order_of_their_times(site: Site) -> None:
    """Whichever gateway wrote them; the last login of a user is the last at any."""
    for number in range(6):
        site.write(NAMES[number % 2], "login.allowed", "alice", ALICE, number=number)
    found = list(stream(site.root, Filter(action="login")))
    assert [record.detail["number"] for record in found] == list(range(6))
    assert last_of_each(site.root, ["alice"], "login.allowed")["alice"].detail["number"] == 5
    assert len(list(stream(site.places["gw1"]))) < len(list(stream(site.root)))


def test_a_key_added_at_one_and_removed_at_the_other_contradicts_nothing(site: Site) -> None:
    """Held against one chain alone it would seem to have vanished."""
    site.write("gw1", "key.added", user="alice", fingerprint="SHA256:x")
    site.write("gw2", "key.removed", user="alice", fingerprint="SHA256:x")
    assert compare(site.root, {"alice": []}, []) == ()
    assert [one.kind for one in compare(site.places["gw1"], {"alice": []}, [])] == ["key.vanished"]
    assert [one.kind for one in compare(site.root, {"alice": ["SHA256:x"]}, [])] == ["key.came-back"]


def test_a_gateway_that_starts_ends_nobodys_stay_at_the_other(site: Site) -> None:
    """Alice works on through gw1 while gw2 is started anew."""
    site.write("gw1", "session.opened", "alice", ALICE, connection="c1", session="s1")
    site.write("gw2", "gateway.started", gateway="gw2")
    now = datetime.now(UTC)
    [stay] = stays_in(site.root, {"alice"}, now - timedelta(hours=1), now + timedelta(hours=1))
    assert stay.until is None


def test_each_chain_is_proved_by_heads_of_its_own_name(site: Site) -> None:
    """One key signs for both; a head of one says nothing of the other, and both heads prove both."""
    for name in NAMES:
        site.write(name, "gateway.started", gateway=name)
    signed = {name: signer.sign() for name, signer in site.signers.items()}
    assert [head.origin for head, _note in signed.values()] == ["lab/devgw/gw1", "lab/devgw/gw2"]
    verifiers = own_verifiers(site.places)
    heads = [open_head(note, *verifiers) for _head, note in signed.values()]
    reports = verify_each(site.places, verifiers, heads)
    assert {name: (report.ok, report.head_checked) for name, report in reports.items()} == {
        "gw1": (True, True), "gw2": (True, True),
    }  # fmt: skip
    with pytest.raises(JournalError):
        open_head(signed["gw1"][1], verifiers[1])


def test_a_chain_that_was_changed_is_named_and_the_other_is_whole(site: Site) -> None:
    """So is one that is not there at all."""
    for name in NAMES:
        for number in range(3):
            site.write(name, "gateway.started", gateway=name, number=number)
    site.close()
    [segment] = sorted(site.places["gw2"].glob("segment-*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"number":1', b'"number":7'))
    reports = verify_each(site.places, (), ())
    assert {name: report.ok for name, report in reports.items()} == {"gw1": True, "gw2": False}
    assert missing_journals(site.places, ["gw1", "gw2", "gw3"]) == ["gw3"]


def test_gateways_that_begin_at_once_make_one_key_and_none_reads_half_of_it(tmp_path: Path) -> None:
    """Many at the same moment, each as it starts."""
    for number in range(30):
        start = Barrier(8)

        def begin(one: int, place: Path = tmp_path / f"keys{number}", start: Barrier = start) -> bytes:
            start.wait(timeout=60)
            return HeadKey(place, f"gw{one}", place / f"gw{one}").ensure("lab/devgw").verifier.key

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(begin, range(8)))) == 1


def test_a_key_without_a_record_is_certain_only_where_every_journal_is_whole(site: Site) -> None:
    """The record may stand in what one of the gateways has pruned."""
    for name in NAMES:
        site.write(name, "login.allowed", "alice", ALICE)
    site.close()
    keys = {"alice": ["SHA256:x"]}
    assert [(one.kind, one.certain) for one in compare(site.root, keys)] == [("key.unrecorded", True)]
    (segment,) = site.places["gw2"].glob("segment-*.jsonl")
    records = segment.read_bytes().splitlines(keepends=True)
    segment.unlink()
    segment.with_name(f"segment-{2:012}.jsonl").write_bytes(b"".join(records[1:]))
    assert [(one.kind, one.certain) for one in compare(site.root, keys)] == [("key.unrecorded", False)]
