"""A port that cannot be listened on is one clear line."""

import errno
import os
import socket

import pytest

from gateway.errors import ConfigError, ConflictError, DevgwError, Exit
from gateway.ssh.listening import explained


def test_a_port_that_another_has_says_so() -> None:
    with socket.socket() as taken, socket.socket() as second:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError, match=f"port {port}") as failed, explained("127.0.0.1", port):
            second.bind(("127.0.0.1", port))
    assert failed.value.exit_code is Exit.CONFLICT
    assert "--port" in failed.value.hint


def test_an_address_of_another_host_says_so() -> None:
    with socket.socket() as probe, pytest.raises(ConfigError, match=r"192\.0\.2\.1"), explained("192.0.2.1", 0):
        probe.bind(("192.0.2.1", 0))


@pytest.mark.parametrize(
    ("number", "message"), [(errno.EACCES, "may not listen on port 22"), (errno.EMFILE, "too many open files")]
)
def test_whatever_else_is_wrong_says_so(number: int, message: str) -> None:
    with pytest.raises(DevgwError, match=message), explained("", 22):
        raise OSError(number, os.strerror(number))
