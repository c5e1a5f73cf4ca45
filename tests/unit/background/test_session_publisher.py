"""The list of who is connected is written when it has changed, and whom an administrator wants out is ended."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.background import session_publisher as publisher_module
from gateway.background.session_publisher import SessionPublisher
from gateway.model import EnvironmentRef, Fingerprint, PublicKey, User, UserName
from gateway.ssh.connection_registry import ClientIdentity, ConnectionRegistry, LiveChannel, LiveConnection
from gateway.ssh.services import Offload
from gateway.store.database import Database
from gateway.store.sessions import LiveSessionTable, Owner
from policies.requests import SessionRequest
from tests.fakes.recorder import MemoryRecorder
from tests.support.ssh_gateway import MemoryDirectory, MemoryEnvironments

OWNER = Owner(1, 2, "boot")


@dataclass
class Stage:
    """A registry and its publisher over a real store; `ended` holds what users were shown."""

    root: Path
    ended: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = Database(f"sqlite:///{self.root / 'devgw.db'}")
        self.table = LiveSessionTable(self.database, lambda _owner: True)
        self.registry = ConnectionRegistry(MemoryDirectory(), MemoryEnvironments(), Offload(), MemoryRecorder())
        self.publisher = SessionPublisher(self.table, self.registry, OWNER)

    def connect(self, user: str) -> LiveConnection:
        ref = EnvironmentRef.parse(user)
        key = PublicKey(Fingerprint("SHA256:x"), "ssh-ed25519", 256, "ssh-ed25519 AAAA")
        identity = ClientIdentity(ref, User(UserName(user), 1, datetime.now(UTC)), key, "192.0.2.7")
        live = LiveConnection(identity, lambda reason: self.ended.append((user, reason)), lambda _line: None)
        self.registry.add(live)
        return live

    def open(self, live: LiveConnection) -> LiveChannel:
        request = SessionRequest(live.identity.subject, datetime.now(UTC), "shell")
        channel = LiveChannel(request, lambda _reason: None, detail="shell")
        live.channels.append(channel)
        return channel

    def shown(self) -> list[tuple[str, tuple[str, ...], int]]:
        return [(one.session.user, one.session.channels, one.session.sent_bytes) for one in self.table.all()]


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    """Nor when nobody is connected; whoever comes, opens a channel or goes is written at once."""

    async def scene() -> None:
        stage = Stage(tmp_path)
        assert not await stage.publisher.publish()
        lives = [stage.connect("alice") for _ in range(1000)]
        assert await stage.publisher.publish()
        assert not await stage.publisher.publish()
        stage.open(lives[0])
        assert await stage.publisher.publish()
        assert not await stage.publisher.publish()
        for live in lives[1:]:
            stage.registry.remove(live)
        assert await stage.publisher.publish()
        assert stage.shown() == [("alice", ("session shell",), 0)]

    asyncio.run(scene())


def test_bytes_alone_are_written_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download costs one write in a while, not two a second; a change of channels carries the counts along."""

    async def scene() -> None:
        stage = Stage(tmp_path)
        channel = stage.open(stage.connect("alice"))
        await stage.publisher.publish()
        channel.traffic.sent_bytes = 5
        assert not await stage.publisher.publish()
        stage.connect("bob")
        assert await stage.publisher.publish()
        assert stage.shown() == [("alice", ("session shell",), 5), ("bob", (), 0)]
        channel.traffic.sent_bytes = 6
        monkeypatch.setattr(publisher_module, "_COUNT_SECONDS", 0.0)
        assert await stage.publisher.publish()
        assert stage.shown()[0][2] == 6

    asyncio.run(scene())


def test_whom_an_administrator_wants_out_is_ended_once(tmp_path: Path) -> None:
    """However often it is looked before the request can be removed; nobody else is touched."""

    async def scene() -> None:
        stage = Stage(tmp_path)
        alice = stage.connect("alice")
        stage.connect("bob")
        await stage.publisher.publish()
        stage.table.ask_to_end(stage.table.all(UserName("alice")), "maintenance")
        await stage.publisher.end_killed()
        await stage.publisher.end_killed()
        assert stage.ended == [("alice", "maintenance")]
        stage.registry.remove(alice)
        assert await stage.publisher.publish()
        assert stage.table.to_end(OWNER) == {}
        assert [user for user, *_ in stage.shown()] == ["bob"]
        assert not await stage.publisher.publish()

    asyncio.run(scene())


def test_a_request_for_who_has_left_already_is_dropped(tmp_path: Path) -> None:
    """They went while the administrator typed."""

    async def scene() -> None:
        stage = Stage(tmp_path)
        alice = stage.connect("alice")
        await stage.publisher.publish()
        stage.table.ask_to_end(stage.table.all(), "maintenance")
        stage.registry.remove(alice)
        await stage.publisher.end_killed()
        await stage.publisher.publish()
        assert stage.ended == []
        assert stage.table.to_end(OWNER) == {}

    asyncio.run(scene())
