"""A cluster that runs commands in one pod, and a service in it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.engines.kubernetes.client import Cluster
from tests.unit.engines.kubernetes.exec_server import ExecServer, exec_server
from tests.unit.engines.kubernetes.pod_dial import cluster_at


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ExecServer]:
    with exec_server(tmp_path) as running:
        yield running


@pytest.fixture
def cluster(server: ExecServer, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_at(server.url, tmp_path) as opened:
        yield opened


@pytest.fixture
def service(tmp_path: Path) -> Iterator[socket.socket]:
    """A service of the environment, listening; the test plays its part."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "ssh.sock"))
        listener.listen()
        listener.settimeout(20)
        yield listener
