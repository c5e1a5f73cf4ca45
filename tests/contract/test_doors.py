"""The way to hosts outside by name (ADR 0022) needs one thing of an engine: its socket is reached inside."""

import socket
from pathlib import Path

from gateway.egress.doors import SOCKET, Place, open_listener
from gateway.model import Mount
from tests.contract.subject import GID, UID, EngineUnderTest, started


def test_a_socket_of_the_gateways_is_reached_from_inside_and_stays_what_it_is(
    real: EngineUnderTest, tmp_path: Path
) -> None:
    """Its directory is mounted read-only, as the environment's folder of settings is, and only its user may connect."""
    door = tmp_path / "door"
    door.mkdir(mode=0o711)
    door.chmod(0o711)
    with open_listener(Place(door, UID, GID)) as listener:
        listener.settimeout(20)
        at_home = Mount(door, "/etc/devgw/env", read_only=True)
        where_logger_connects = Mount(door / SOCKET, "/dev/log", read_only=True)
        spool = started(real, mounts=(*real.spec().mounts, at_home, where_logger_connects))
        assert spool.run("busybox logger -t inside 'to a host by name'").code == 0
        connection, _ = listener.accept()
        with connection:
            assert b"inside: to a host by name" in said(connection)
        assert "Read-only file system" in spool.run(f"rm -f /etc/devgw/env/{SOCKET}").text


def said(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    received = b""
    while piece := connection.recv(4096):
        received += piece
    return received
