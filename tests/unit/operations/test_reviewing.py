"""Who a review is about, and when each last came: the journal may be pruned, or know somebody by another name."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.model import Actor, Fingerprint, PublicKey, UserName
from gateway.operations.reviewing import people_of
from gateway.store.database import Database
from gateway.store.users import Users

ALICE = UserName("alice")
KEY = PublicKey(Fingerprint("SHA256:a"), "ssh-ed25519", 256, "ssh-ed25519 AAAA a", "a")


def test_a_login_that_the_journal_has_no_more_is_known_from_the_key(database_url: str, tmp_path: Path) -> None:
    """A name that came yesterday must not stand in a review as never seen."""
    users = Users(Database(database_url))
    for name in (ALICE, UserName("bob")):
        users.ensure(name, uid_start=200000)
    users.add_key(ALICE, KEY)
    assert [one.last_login_at for one in people_of(users, tmp_path / "none")] == [None, None]
    users.key_used(ALICE, KEY.fingerprint)
    alice, bob = people_of(users, tmp_path / "none")
    assert alice.last_login_at is not None
    assert bob.last_login_at is None


def test_a_login_with_a_key_that_is_gone_or_with_a_certificate_is_known_from_the_journal(
    database_url: str, tmp_path: Path
) -> None:
    """The later of both counts."""
    users, later = Users(Database(database_url)), datetime.now(UTC) + timedelta(hours=1)
    users.ensure(ALICE, uid_start=200000)
    users.add_key(ALICE, KEY)
    users.key_used(ALICE, KEY.fingerprint)
    journal = Journal(tmp_path / "journal")
    journal.append(Event("login.allowed", Actor("user", "alice"), "alice", "allowed", at=later))
    journal.close()
    (alice,) = people_of(users, tmp_path / "journal")
    assert alice.last_login_at == later
