"""Invariant 5: whoever owns the shared directory gains nothing by what they put in the sockets' place."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.engines.docker.run_directories import RunDirectories, run_directory_in
from gateway.engines.run_directory import RunDirectory
from gateway.errors import EngineError
from gateway.model import EnvironmentRef

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
    with listening(deep / "ssh.sock", own_uid()), RunDirectory(deep, own_uid()).dial("ssh") as connection:
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
            RunDirectory(place, own_uid()).dial("ssh")
    assert refused.value.code == "socket.forged"


@pytest.mark.attack("C16", "another owner's socket in its place")
def test_a_socket_of_another_owner_is_refused(tmp_path: Path):
    """Such as one hard-linked from elsewhere on the file system."""
    with listening(tmp_path / "ssh.sock", own_uid()), pytest.raises(EngineError) as refused:
        RunDirectory(tmp_path, own_uid() + 1).dial("ssh")
    assert refused.value.code == "socket.forged"


@pytest.mark.attack("C16", "a link in place of the directory")
def test_a_directory_that_is_a_link_is_refused(tmp_path: Path):
    """The last step to the directory is not followed either."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with listening(tmp_path / "real" / "ssh.sock", own_uid()), pytest.raises(EngineError):
        RunDirectory(tmp_path / "link", own_uid()).dial("ssh")


def test_an_absent_service_and_a_dead_one_are_told_apart(tmp_path: Path):
    """Not there yet, or there and silent."""
    with pytest.raises(EngineError) as absent:
        RunDirectory(tmp_path, own_uid()).dial("notebook")
    with listening(tmp_path / "notebook.sock", own_uid()):
        pass
    with pytest.raises(EngineError) as dead:
        RunDirectory(tmp_path, own_uid()).dial("notebook")
    assert (absent.value.code, dead.value.code) == ("socket.absent", "socket.refused")


@pytest.mark.attack("C16", "a report that is a link, a FIFO, a directory, somebody else's, or without end")
@pytest.mark.parametrize("what", ["link", "fifo", "directory", "absent", "other owner", "link to the directory"])
def test_a_report_that_is_not_the_environments_own_file_is_none(tmp_path: Path, what: str):
    """Nothing is followed, nothing waits."""
    place, secret = tmp_path / "run", tmp_path / "secret"
    place.mkdir()
    secret.write_text("secret")
    report, uid, directory = place / "status.json", own_uid(), place
    if what == "link":
        report.symlink_to(secret)
    elif what == "fifo":
        os.mkfifo(report)
    elif what == "directory":
        report.mkdir()
    elif what in {"other owner", "link to the directory"}:
        report.write_text("{}")
        os.chown(report, own_uid(), -1)
        uid += what == "other owner"
        if what == "link to the directory":
            directory = tmp_path / "link"
            directory.symlink_to(place)
    assert RunDirectory(directory, uid).status() is None


def test_a_report_is_read_and_no_more_of_it_than_4096_bytes(tmp_path: Path):
    report = tmp_path / "status.json"
    report.write_text("x" * 10_000)
    os.chown(report, own_uid(), -1)
    assert RunDirectory(tmp_path, own_uid()).status() == b"x" * 4096


ALICE, PLACE = EnvironmentRef.parse("alice"), RunDirectory(Path("/srv/run"), 7)


def test_docker_remembers_where_a_run_directory_lies(tmp_path: Path):
    """In a file of its own for each environment: names that look alike stay apart."""
    kept = RunDirectories(tmp_path / "kept")
    assert kept.find(ALICE) is None
    kept.remember(ALICE, PLACE)
    kept.remember(EnvironmentRef.parse("alice+a"), RunDirectory(Path("/a"), 8))
    assert RunDirectories(tmp_path / "kept").find(ALICE) == PLACE
    kept.forget(ALICE)
    kept.forget(ALICE)
    assert kept.find(ALICE) is None
    assert kept.find(EnvironmentRef.parse("alice+a")) == RunDirectory(Path("/a"), 8)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"path": "/x"}', '{"path": 3, "uid": "x"}'])
def test_a_damaged_memory_is_none_and_the_daemon_is_asked(tmp_path: Path, damage: str):
    kept = RunDirectories(tmp_path)
    kept.remember(ALICE, PLACE)
    next(tmp_path.glob("*.json")).write_text(damage)
    assert kept.find(ALICE) is None


def test_what_cannot_be_remembered_is_not_remembered_wrongly(tmp_path: Path):
    """On a full disk the old word goes, so that the daemon is asked."""
    kept = RunDirectories(tmp_path)
    kept.remember(ALICE, PLACE)
    fresh = tmp_path / f".alice.main.json.{os.getpid()}"
    fresh.mkdir()
    kept.remember(ALICE, RunDirectory(Path("/elsewhere"), 9))
    assert kept.find(ALICE) is None


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        ([{"Type": "bind", "Source": "/srv/run", "Destination": "/run/devgw"}], PLACE),
        ([{"Type": "volume", "Source": "/srv/run", "Destination": "/run/devgw"}], None),
        ([{"Type": "bind", "Source": "/srv/run", "Destination": "/workspace"}], None),
        ([], None),
    ],
)
def test_the_daemon_says_where_it_lies_too(mounts: list[dict[str, str]], found: RunDirectory | None):
    """For containers of an older version, in the form of `GET /containers/{id}/json`."""
    inspected = {"Config": {"Labels": {"devgw.uid": "7"}}, "Mounts": mounts}
    assert run_directory_in(json.loads(json.dumps(inspected))) == found
