"""The world outside the host, made of one network namespace: addresses that answer, behind a cable to the host."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.host_resources import turn

PORT = 7000
PUBLIC = "192.31.196.1"
"""Globally reachable by IANA's registry (AS112, RFC 7535), so a filter must let it out; here it is in the namespace."""
LISTED = "198.51.100.7"
"""A documentation address: closed to `internet`, open to a list that names it."""
NEIGHBOUR = "198.51.100.8"
CLOSED = ("10.77.0.1", "172.20.0.1", "192.168.77.1", "100.64.0.1", "169.254.169.254", LISTED)
_NAME = "dgwout"
_CABLE = ("198.51.100.1", "198.51.100.2")
_SERVE = """
    import socket, sys
    listener = socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=64)
    print("listening", flush=True)
    while True:
        connection, peer = listener.accept()
        with connection:
            connection.sendall(b"here")
"""


@contextmanager
def outside() -> Iterator[None]:
    """Give the host a network with every kind of address in it, each answering `here` on `PORT`.

    The addresses are fixed, so one test run has them at a time; what a run that was killed left is taken away first.
    """
    with turn("the addresses outside"):
        _remove()
        with _network(_NAME):
            yield


@contextmanager
def _network(name: str) -> Iterator[None]:
    here, there = f"{name}0", f"{name}1"
    addresses = (PUBLIC, NEIGHBOUR, *CLOSED)
    _ip("netns", "add", name)
    server = None
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("address", "add", f"{_CABLE[0]}/30", "dev", here)
        _ip("link", "set", here, "up")
        inside = ("-n", name)
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "address", "add", f"{_CABLE[1]}/30", "dev", there)
        _ip(*inside, "link", "set", there, "up")
        _ip(*inside, "route", "add", "default", "via", _CABLE[0])
        for address in addresses:
            _ip(*inside, "address", "add", f"{address}/32", "dev", "lo")
            _ip("route", "add", f"{address}/32", "via", _CABLE[1])
        server = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                "ip",
                "netns",
                "exec",
                name,
                sys.executable,
                "-c",
                textwrap.dedent(_SERVE),
                str(PORT),
            ],
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
        yield
    finally:
        if server is not None:
            server.kill()
            server.communicate(timeout=60)
        _remove()


def _remove() -> None:
    for what in (["link", "delete", f"{_NAME}0"], ["netns", "delete", _NAME]):
        subprocess.run(["ip", *what], check=False, capture_output=True, timeout=60)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=60)
