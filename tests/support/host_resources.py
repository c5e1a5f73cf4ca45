"""What a test run takes from the host so that another run has its own at the same time: uids, ports, and turns.

Claims on ports and turns are names of abstract Unix sockets. The kernel keeps them per network namespace, as it does
ports, and lets go of them when the process ends, however it ends.
"""

import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UIDS_PER_PROCESS = 256
_FIRST_UID = 1_000_000
_FIRST_PORT, _LAST_PORT = 10_000, 32_000
_claims: dict[str, socket.socket] = {}
_taken_uids = 0


def next_uid(count: int = 1) -> int:
    """Return the first of so many consecutive uids that no other process of any test run uses."""
    global _taken_uids  # noqa: PLW0603 - one counter for the process is the point
    size = _uids_of_namespace()
    first = _FIRST_UID + os.getpid() * _UIDS_PER_PROCESS + _taken_uids
    _taken_uids += count
    return first if first + count <= size else 1000 + first % (size - 1000 - count)


def _uids_of_namespace() -> int:
    """Return how many uids there are from 0 on: in a container with a user namespace perhaps 65,536 and no more."""
    first, _, count = Path("/proc/self/uid_map").read_text().splitlines()[0].split()
    return int(count) if first == "0" else 2**32 - 1


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on and no other test run is given.

    It lies below the ports that the kernel gives to outgoing connections, or one of those could take it meanwhile.
    """
    last = min(_LAST_PORT, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
    ports = range(_FIRST_PORT, last) if last > _FIRST_PORT + 1000 else range(_FIRST_PORT, _LAST_PORT)
    for port in random.sample(ports, len(ports)):
        if _claim(f"port {port}"):
            if _can_listen(port):
                return port
            _claims.pop(f"port {port}").close()
    raise RuntimeError(f"every TCP port from {ports.start} to {ports.stop} is taken")


@contextmanager
def turn(what: str, timeout_seconds: float = 600) -> Iterator[None]:
    """Hold what a host has only once, such as fixed addresses; another run waits until this one has done with it."""
    deadline = time.monotonic() + timeout_seconds
    while not _claim(what):
        assert time.monotonic() < deadline, f"another test run held {what!r} for {timeout_seconds} s"
        time.sleep(0.1)
    try:
        yield
    finally:
        _claims.pop(what).close()


def _claim(what: str) -> bool:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(f"\0devgw-tests {what}")
    except OSError:
        sock.close()
        return False
    _claims[what] = sock
    return True


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT does not matter
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True
