"""What somebody leaves behind who begins something and does not wait for it: nothing, however often."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gateway.errors import EngineError
from gateway.model import UserName
from tests.soak.floods import Attacker
from tests.support.ssh_clients import poll
from tests.support.ssh_gateway import TestGateway, allow_all
from tests.unit.ssh.transport.peers import until

SESSIONS = 150
ROUNDS, FORWARDS = 4, 25
LISTENERS = 60
FEW = 12
"""Tasks of the gateway's own."""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[TestGateway]:
    gateway = TestGateway(tmp_path, allow_all)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture
def slow(gateway: TestGateway) -> Iterator[Path]:
    """Alice's key; her environment is stopped, and its start takes as long as the test."""
    over = threading.Event()

    def start(*_order: Any) -> None:
        over.wait(120)
        raise EngineError("environment.died", "the test is over")

    gateway.environments.ensure_running = start  # type: ignore[assignment, method-assign]
    try:
        yield gateway.add_user("alice", running=False)
    finally:
        over.set()


def tasks(gateway: TestGateway) -> int:
    async def count() -> int:
        return len(asyncio.all_tasks())

    return gateway.call(count())


def live_channels(gateway: TestGateway) -> int:
    assert gateway.server
    return gateway.server.registry.channels(UserName("alice"))


def as_alice(gateway: TestGateway, key: Path, work: Callable[[Any], Awaitable[None]]) -> None:
    async def go() -> None:
        connection = await Attacker(gateway.port, str(key), 60).enter()
        try:
            await asyncio.wait_for(work(connection), 60)
        finally:
            connection.abort()

    asyncio.run(go())


@pytest.mark.attack("E40", "sessions opened and closed without end, into an environment that is slow to start")
def test_sessions_that_are_closed_before_they_start_leave_no_task(gateway: TestGateway, slow: Path) -> None:
    """A channel that is closed is free for the next; the work that it began ends with it."""

    async def come_and_go(connection: Any) -> None:
        for _ in range(SESSIONS):
            channel, _ = await connection.create_session(asyncssh.SSHClientSession, "true", encoding=None)
            channel.close()
            await channel.wait_closed()
        poll(lambda: tasks(gateway) < FEW, "the end of what the sessions began")
        server = gateway.server
        assert server
        (attempt,) = server._runtime.upstreams._attempts.values()
        assert len(attempt._listeners) < FEW

    as_alice(gateway, slow, come_and_go)


@pytest.mark.attack("E41", "connections that ask for forwards and leave, while the environment is slow to start")
def test_forwards_that_are_asked_for_end_with_their_connection(gateway: TestGateway, slow: Path) -> None:
    """Each counts in its user's share of the descriptors while it waits, for it may hold one."""
    server = gateway.server
    assert server

    async def ask_and_leave(connection: Any) -> None:
        asked = [
            asyncio.ensure_future(connection.create_connection(asyncssh.SSHTCPSession, "localhost", port))
            for port in range(6000, 6000 + FORWARDS)
        ]
        await until(lambda: server.registry.held(UserName("alice")) > FORWARDS)
        connection.abort()
        with suppress(asyncssh.Error):
            await asyncio.gather(*asked)

    for _ in range(ROUNDS):
        as_alice(gateway, slow, ask_and_leave)
    poll(lambda: tasks(gateway) < FEW, "the end of what the connections began")
    poll(lambda: server.registry.held(UserName("alice")) == 0, "nothing held")


@pytest.mark.attack("E42", "reverse forwards made and cancelled without end, and more at once than are permitted")
def test_listeners_are_bounded_and_forgotten(gateway: TestGateway) -> None:
    """`server.max_listeners` on one connection; what is cancelled is in no list any more."""
    key = gateway.add_user("alice")

    async def listen(connection: Any) -> asyncssh.SSHListener:
        listener: asyncssh.SSHListener = await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 9)
        return listener

    async def come_and_go(connection: Any) -> None:
        for _ in range(LISTENERS):
            listener = await listen(connection)
            listener.close()
            await listener.wait_closed()
        poll(lambda: live_channels(gateway) == 0, "an end of the listeners")
        kept = [await listen(connection) for _ in range(gateway.settings.max_listeners)]
        with pytest.raises(asyncssh.ChannelListenError):
            await listen(connection)
        assert live_channels(gateway) == len(kept)

    as_alice(gateway, key, come_and_go)
    poll(lambda: live_channels(gateway) == 0, "an end of the listeners")
