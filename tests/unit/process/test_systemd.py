"""What systemd hears: real datagrams on a real socket, by path and by abstract name."""

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Iterator

import pytest

from gateway.process.systemd import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def heard(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[socket.socket, str]]:
    """The manager's socket, and what NOTIFY_SOCKET says of it."""
    name = f"devgw-test-{uuid.uuid4().hex[:8]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.settimeout(10)
        if request.param == "abstract":
            inbox.bind(f"\0{name}")
            yield inbox, f"@{name}"
        else:
            inbox.bind(f"/tmp/{name}")
            try:
                yield inbox, f"/tmp/{name}"
            finally:
                os.unlink(f"/tmp/{name}")  # noqa: PTH108 - the name of a socket


def test_each_state_is_one_datagram(heard: tuple[socket.socket, str]) -> None:
    """READY when the port is open, STOPPING when the drain begins."""
    inbox, address = heard
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    manager.ready()
    manager.stopping()
    assert [inbox.recv(4096), inbox.recv(4096)] == [b"READY=1", b"STOPPING=1"]


def test_a_reload_carries_its_moment(heard: tuple[socket.socket, str]) -> None:
    """Type=notify-reload takes a READY only after a RELOADING that is younger than its SIGHUP."""
    inbox, address = heard
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    ServiceManager({"NOTIFY_SOCKET": address}).reloading()
    said = dict(line.split("=") for line in inbox.recv(4096).decode().splitlines())
    assert said["RELOADING"] == "1"
    assert before <= int(said["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_the_watchdog_hears_twice_per_interval(heard: tuple[socket.socket, str]) -> None:
    """The first at once; the next follow while the event loop turns, and none after the task has ended."""
    inbox, address = heard
    manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(os.getpid())})

    async def hear_three() -> list[bytes]:
        keeping = asyncio.create_task(manager.keep_watchdog())
        messages = [await asyncio.to_thread(inbox.recv, 4096) for _ in range(3)]
        keeping.cancel()
        return messages

    assert asyncio.run(hear_three()) == [b"WATCHDOG=1"] * 3


@pytest.mark.parametrize("variables", [{}, {"WATCHDOG_USEC": "40000", "WATCHDOG_PID": "1"}])
def test_a_watchdog_that_is_not_ours_is_left_alone(variables: dict[str, str]) -> None:
    """No variable, or one meant for another process: the task ends at once."""
    manager = ServiceManager(variables)
    assert manager.watchdog_seconds == 0
    asyncio.run(asyncio.wait_for(manager.keep_watchdog(), 10))


def test_nobody_is_told_where_nobody_asked() -> None:
    """In the foreground there is no socket, and one that is gone does not end the gateway."""
    ServiceManager({}).ready()
    ServiceManager({"NOTIFY_SOCKET": "/tmp/devgw-no-such-socket"}).ready()
