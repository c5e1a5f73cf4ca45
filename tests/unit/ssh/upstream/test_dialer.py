"""Reaching an environment that may be stopped."""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import DevgwError, EngineError, TimedOutError
from gateway.model import Actor, Environment, EnvironmentRef
from gateway.ssh.services import Offload
from gateway.ssh.upstream.dialer import EnvironmentDialer
from tests.fakes.recorder import MemoryRecorder
from tests.support.started_environment import DIGEST, started

REF = EnvironmentRef.parse("alice")
ALICE = Actor("user", "alice")


class Stopped:
    """An environment that answers after one start; the start waits for `go`."""

    def __init__(self, error: DevgwError | None = None) -> None:
        self.go, self.starts, self.running, self.error = threading.Event(), 0, False, error

    def exists(self, ref: EnvironmentRef) -> bool:
        return True

    def ensure_running(self, ref: EnvironmentRef, progress: Callable[[str], None], actor: Actor) -> Environment:
        self.starts += 1
        progress("starting")
        assert self.go.wait(10)
        if self.error:
            raise self.error
        self.running = True
        return started(ref)

    def dial(self, ref: EnvironmentRef, service: str) -> Any:
        if not self.running:
            raise EngineError("environment.stopped", "stopped")
        return socket.socketpair()[0]

    def host_key(self, ref: EnvironmentRef) -> str:
        return ""

    def touch(self, ref: EnvironmentRef, moved_bytes: int) -> None:
        """Not looked at here."""


async def wait_for(heard: list[str], count: int) -> None:
    async with asyncio.timeout(5):
        while len(heard) < count:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.005)


def test_one_start_serves_all_who_wait() -> None:
    """Each of three hears the progress, also the one who came late."""
    environment, heard, journal = Stopped(), [], MemoryRecorder()

    async def scenario() -> list[socket.socket]:
        dialer = EnvironmentDialer(environment, Offload(), journal, 10)
        first = [asyncio.create_task(dialer.dial(REF, "ssh", ALICE, heard.append)) for _ in range(2)]
        await wait_for(heard, 2)
        late = asyncio.create_task(dialer.dial(REF, "notebook", ALICE, heard.append))
        await wait_for(heard, 3)
        environment.go.set()
        return list(await asyncio.gather(*first, late))

    for sock in asyncio.run(scenario()):
        sock.close()
    assert (environment.starts, heard) == (1, ["starting"] * 3)
    assert [(event.code, event.actor, event.reason) for event in journal.events] == [
        ("environment.woken", ALICE, "its ssh was asked for")
    ]
    assert journal.events[0].detail["digest"] == DIGEST


def test_a_failed_start_is_told_and_the_next_one_tries_again() -> None:
    """The error is the environment's own."""
    environment, journal = Stopped(EngineError("image.gone", "the image is gone")), MemoryRecorder()
    environment.go.set()

    async def scenario() -> None:
        dialer = EnvironmentDialer(environment, Offload(), journal, 10)
        for _ in range(2):
            with pytest.raises(EngineError, match="the image is gone"):
                await dialer.dial(REF, "ssh", ALICE)

    asyncio.run(scenario())
    assert environment.starts == 2
    assert journal.events == []


def test_one_who_gives_up_does_not_stop_the_start() -> None:
    """The other still gets in."""
    environment, heard, journal = Stopped(), [], MemoryRecorder()

    async def scenario() -> socket.socket:
        dialer = EnvironmentDialer(environment, Offload(), journal, 10)
        gone, stays = (asyncio.create_task(dialer.dial(REF, "ssh", ALICE, heard.append)) for _ in range(2))
        await wait_for(heard, 2)
        gone.cancel()
        environment.go.set()
        return await stays

    asyncio.run(scenario()).close()
    assert environment.starts == 1


def test_a_start_that_takes_too_long_is_given_up() -> None:
    """With a code of its own."""
    environment = Stopped()

    async def scenario() -> None:
        with pytest.raises(TimedOutError) as refused:
            await EnvironmentDialer(environment, Offload(), MemoryRecorder(), 0.05).dial(REF, "ssh", ALICE)
        assert refused.value.code == "environment.start-timeout"
        environment.go.set()

    asyncio.run(scenario())
