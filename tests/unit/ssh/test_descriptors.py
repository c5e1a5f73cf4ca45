"""Descriptors: all that the system gives, and a share of them for each user."""

import asyncio
import resource
import subprocess
import sys
import time
from typing import Any

import pytest

from gateway.auth.throttle import Throttle
from gateway.config import SshSettings
from gateway.ssh.admission import NO_DESCRIPTORS, AcceptProtocol, Admission
from gateway.ssh.descriptors import LAST, RESERVED, may_accept, may_keep, may_serve


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """In a process of its own, since it lasts."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    program = (
        "import resource; from gateway.ssh.descriptors import raise_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}))\n"
        "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    wanted, soft, _ = map(int, said.stdout.split())
    assert wanted == soft
    assert soft == hard or (hard == resource.RLIM_INFINITY and soft == 1 << 20)


@pytest.mark.parametrize(
    ("descriptor", "held", "may"),
    [
        (100, 4000, True),  # half of all are free
        (2047, 4000, True),
        (2048, 511, True),  # fewer are: who has little may
        (2048, 512, False),
        (4095 - RESERVED, 0, True),
        (4096 - RESERVED, 0, False),  # the reserve
    ],
)
def test_a_user_may_keep_a_descriptor(descriptor: int, held: int, may: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4096."""
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (4096, 4096))
    assert may_keep(descriptor, held) is may


@pytest.mark.parametrize(
    ("descriptor", "held", "may"),
    [
        (2047, 4000, True),  # half of all are free
        (4096 - RESERVED, 511, True),  # into the reserve
        (4095 - LAST, 511, True),
        (4096 - LAST, 0, False),  # but not the last
        (2048, 512, False),  # nor for who has much already
    ],
)
def test_a_user_is_served_from_the_reserve(
    descriptor: int, held: int, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a connection, and the one into their environment."""
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (4096, 4096))
    assert may_serve(descriptor, held) is may


@pytest.mark.parametrize(
    ("descriptor", "is_known", "may"),
    [
        (4095 - LAST, True, True),
        (4096 - LAST, True, False),
        (4095 - RESERVED // 2, False, True),
        (4096 - RESERVED // 2, False, False),
    ],
)
def test_new_connections_leave_the_last_descriptors(
    descriptor: int, is_known: bool, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4096: for what administrators ask, the store and the journal; and strangers leave some to users."""
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (4096, 4096))
    assert may_accept(descriptor, is_known=is_known) is may


def test_a_connection_on_one_of_the_last_descriptors_hears_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an SSH disconnect message, and nothing was begun for it."""
    monkeypatch.setattr("gateway.ssh.admission.may_accept", lambda _descriptor, *, is_known: is_known)
    settings = SshSettings()

    async def go() -> bytes:
        loop = asyncio.get_running_loop()
        admission = Admission(settings, Throttle(time.time))

        def never(_admitted: Any) -> Any:
            raise AssertionError

        server = await loop.create_server(lambda: AcceptProtocol(admission, never), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            said = await asyncio.wait_for(reader.read(), 20)
            writer.close()
        return said

    assert NO_DESCRIPTORS.encode() in asyncio.run(go())
