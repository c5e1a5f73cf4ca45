"""The environment variables that a session keeps are few and small together (RFC 4254 §6.4)."""

from types import SimpleNamespace
from typing import Any

from asyncssh.packet import SSHPacket, String

from gateway.ssh.transport.channels import VARIABLES_MAX, VARIABLES_MAX_BYTES, SessionChannel


def keep(channel: Any, name: bytes, value: bytes) -> bool:
    return SessionChannel._process_env_request(channel, SSHPacket(String(name) + String(value)))


def test_variables_are_bounded_together() -> None:
    """Sixty-four of 30 KiB would be two MiB a session, and a user may have hundreds of sessions."""
    channel = SimpleNamespace(_env={})
    kept = [keep(channel, b"LC_%d" % number, bytes([65]) * 30_000) for number in range(VARIABLES_MAX)]
    assert kept == [True, True] + [False] * (VARIABLES_MAX - 2)
    assert sum(len(name) + len(value) for name, value in channel._env.items()) <= VARIABLES_MAX_BYTES


def test_many_small_variables_pass() -> None:
    """As many as there may be, and not one more."""
    channel = SimpleNamespace(_env={})
    assert [keep(channel, b"LC_%d" % number, b"x") for number in range(VARIABLES_MAX + 1)].count(True) == VARIABLES_MAX
