"""An environment on another machine: what leads there is one end of a pair, and whoever carries its bytes may fail."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model import EnvironmentRef
from tests.support.processes import running
from tests.support.ssh_gateway import MemoryEnvironments, TestGateway


class CarriedEnvironments(MemoryEnvironments):
    """Gives streams as an engine of several machines does; `cut` ends all, as a carrier's own end would."""

    def __init__(self) -> None:
        super().__init__()
        self._carried: list[socket.socket] = []

    def dial(self, ref: EnvironmentRef, service: str) -> socket.socket:
        far = super().dial(ref, service)
        ours, theirs = socket.socketpair()
        far.setblocking(True)
        theirs.setblocking(False)
        for source, target in ((ours, far), (far, ours)):
            threading.Thread(target=_carry, args=(source, target), daemon=True).start()
        self._carried += [ours, far]
        return theirs

    def cut(self) -> None:
        for one in self._carried:
            _end(one, socket.SHUT_RDWR)
        self._carried.clear()


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Move bytes until one side's end, which is handed on."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    _end(target, socket.SHUT_WR)


def _end(one: socket.socket, how: int) -> None:
    try:
        one.shutdown(how)
    except OSError:
        return


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[TestGateway, CarriedEnvironments, Path]]:
    gateway = TestGateway(tmp_path)
    carried = CarriedEnvironments()
    gateway.environments, gateway.services = carried, replace(gateway.services, environments=carried)
    gateway.start()
    try:
        yield gateway, carried, gateway.add_user("alice")
    finally:
        gateway.stop()


def test_commands_run_and_their_codes_come_back(site: tuple[TestGateway, CarriedEnvironments, Path]) -> None:
    """A socket without a name is as good as one with a path."""
    gateway, _carried, alice = site
    done = gateway.run("alice", alice, "cat; exit 7", input=b"spoken")
    assert (done.returncode, done.stdout) == (7, b"spoken"), done.stderr


def test_what_is_cut_is_no_success(site: tuple[TestGateway, CarriedEnvironments, Path]) -> None:
    """A command whose carrier ends says so, and the next one finds its way again."""
    gateway, carried, alice = site
    command = gateway.ssh("alice", alice, "echo begun; sleep 60; echo over")
    with running(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"begun\n"
        carried.cut()
        rest, _ = client.communicate(timeout=50)
    assert (rest, client.returncode != 0) == (b"", True)
    assert gateway.run("alice", alice, "exit 7").returncode == 7
