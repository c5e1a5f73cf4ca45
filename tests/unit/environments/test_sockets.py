"""Invariant 5: whoever owns the shared directory gains nothing by what they put in the sockets' place."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.environments.sockets import dial
from gateway.errors import EngineError

UID = 200000


@contextmanager
def listening(path: Path, uid: int, says: bytes = b"real") -> Iterator[None]:
    """Listen on a Unix socket owned by `uid` and greet once."""
    with socket.socket(socket.AF_UNIX) as listener:
        directory = os.open(path.parent, os.O_PATH)
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
        if os.geteuid() == 0:
            os.chown(path, uid, uid)
        listener.listen()
        yield


def own_uid() -> int:
    return UID if os.geteuid() == 0 else os.geteuid()


def test_the_environments_own_socket_is_dialled(tmp_path: Path):
    """Connected, non-blocking, and no path longer than a socket address is a hindrance."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with listening(deep / "ssh.sock", own_uid()), dial(deep, "ssh", own_uid()) as connection:
        assert connection.getblocking() is False
        assert connection.getpeername()


@pytest.mark.attack("C16", "a link to the engine's socket in place of the environment's own")
@pytest.mark.parametrize("what", ["link to a socket", "file", "directory", "fifo", "link to nowhere"])
def test_anything_but_a_socket_is_refused(tmp_path: Path, what: str):
    """A link to the engine's socket would be the worst of them."""
    elsewhere, place = tmp_path / "docker.sock", tmp_path / "run"
    place.mkdir()
    with listening(elsewhere, own_uid()):
        make = {
            "link to a socket": lambda: (place / "ssh.sock").symlink_to(elsewhere),
            "file": lambda: (place / "ssh.sock").write_text("x"),
            "directory": (place / "ssh.sock").mkdir,
            "fifo": lambda: os.mkfifo(place / "ssh.sock"),
            "link to nowhere": lambda: (place / "ssh.sock").symlink_to("/nowhere"),
        }
        make[what]()
        with pytest.raises(EngineError) as refused:
            dial(place, "ssh", own_uid())
    assert refused.value.code == "socket.forged"


@pytest.mark.attack("C16", "another owner's socket in its place")
def test_a_socket_of_another_owner_is_refused(tmp_path: Path):
    """Such as one hard-linked from elsewhere on the file system."""
    with listening(tmp_path / "ssh.sock", own_uid()), pytest.raises(EngineError) as refused:
        dial(tmp_path, "ssh", own_uid() + 1)
    assert refused.value.code == "socket.forged"


@pytest.mark.attack("C16", "a link in place of the directory")
def test_a_directory_that_is_a_link_is_refused(tmp_path: Path):
    """The last step to the directory is not followed either."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with listening(tmp_path / "real" / "ssh.sock", own_uid()), pytest.raises(EngineError):
        dial(tmp_path / "link", "ssh", own_uid())


def test_an_absent_service_and_a_dead_one_are_told_apart(tmp_path: Path):
    """Not there yet, or there and silent."""
    with pytest.raises(EngineError) as absent:
        dial(tmp_path, "notebook", own_uid())
    with listening(tmp_path / "notebook.sock", own_uid()):
        pass
    with pytest.raises(EngineError) as dead:
        dial(tmp_path, "notebook", own_uid())
    assert (absent.value.code, dead.value.code) == ("socket.absent", "socket.refused")
