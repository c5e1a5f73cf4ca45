"""`devgw sessions kill` says so when the gateway has not ended what it was asked to end."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.cli import sessions
from gateway.errors import Exit, TimedOutError
from gateway.store.database import Database
from gateway.store.sessions import LiveSession, LiveSessionTable, Owner

OWNER = Owner(1, 2, "boot")
ALICE = LiveSession("a1", "alice", "SHA256:x", "192.0.2.7", "alice", (), 0, 0, datetime.now(UTC))


@pytest.fixture
def table(tmp_path: Path) -> LiveSessionTable:
    table = LiveSessionTable(Database(f"sqlite:///{tmp_path / 'devgw.db'}"), lambda _owner: True)
    table.publish(OWNER, [ALICE], (), ())
    return table


def test_a_gateway_that_does_not_answer_is_a_timeout(table: LiveSessionTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3, with the ids that are still there."""
    monkeypatch.setattr(sessions, "_END_SECONDS", 0.0)
    with pytest.raises(TimedOutError, match="a1") as caught:
        sessions._await_end(table, table.all(), lambda _seconds: None)
    assert (caught.value.code, caught.value.exit_code) == ("session.not-ended", Exit.TIMED_OUT)


def test_waiting_ends_when_they_are_gone(table: LiveSessionTable) -> None:
    """It looks again after each pause."""
    sessions._await_end(table, table.all(), lambda _seconds: table.publish(OWNER, [], ["a1"], ()))
    assert table.all() == []
