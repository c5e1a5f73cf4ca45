"""Journals in a temporary directory, and events to put in them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.event import Event
from gateway.audit.head_signing import HeadSigner
from gateway.audit.heads import Signer
from gateway.audit.journal import Journal
from gateway.model import Actor
from tests.unit.audit.written_journals import NOON, crowded_journal

ALICE = Actor("user", "alice", "SHA256:" + "a" * 43, "192.0.2.7")

MakeEvent = Callable[..., Event]


def signing(directory: Path, signer: Signer) -> HeadSigner:
    """Sign a journal's heads as the gateway does; the last one is kept beside the journal."""
    return HeadSigner(directory, lambda: signer, directory.with_name("journal_head.last"))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.create(tmp_path / "head.key", "gw/journal")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def crowded(directory: Path) -> Path:
    """5,000 acts of seven users over five segments."""
    return crowded_journal(directory)


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    journal = Journal(directory)
    yield journal
    journal.close()


@pytest.fixture
def event() -> MakeEvent:
    """Make an event; what a test does not say is an allowed forward of alice's at noon."""

    def make(code: str = "forward.allowed", **fields: Any) -> Event:
        plain: dict[str, Any] = {"actor": ALICE, "environment": "alice", "decision": "allowed", "at": NOON}
        return Event(code, **(plain | fields))

    return make


@pytest.fixture
def written(directory: Path, event: MakeEvent) -> Path:
    """A closed journal of one opening record and nine events; the n-th event is record n + 1."""
    journal = Journal(directory)
    for number in range(1, 10):
        journal.append(event(detail={"n": number}))
    journal.close()
    return directory
