"""Fake engines whose environments answer on their two sockets, as far as `readiness` and `dial` look."""

import os
import socket
import threading
from pathlib import Path

from gateway.model import EnvironmentRef, EnvironmentSpec
from tests.fakes.cluster import ClusterEngine
from tests.fakes.engine import FakeDaemon, FakeEngine

_GREETINGS = {"ssh.sock": b"SSH-2.0-fake\r\n", "notebook.sock": b"HTTP/1.0 200 OK\r\n\r\n"}


class AnsweringEngine(FakeEngine):
    """The fake engine of the contract suite, with something behind the sockets of what it starts."""

    def __init__(self, daemon: FakeDaemon, gateway_id: str = "one") -> None:
        super().__init__(daemon, gateway_id)
        self._listeners: dict[EnvironmentRef, list[socket.socket]] = {}

    def start(self, ref: EnvironmentRef) -> None:
        super().start(ref)
        if ref not in self._listeners:
            spec = self._found(ref).spec
            self._listeners[ref] = [_listen(_run_directory(spec), name, spec.uid) for name in _GREETINGS]

    def stop(self, ref: EnvironmentRef, timeout_seconds: float) -> None:
        super().stop(ref, timeout_seconds)
        self._hang_up(ref)

    def delete(self, ref: EnvironmentRef) -> None:
        super().delete(ref)
        self._hang_up(ref)

    def close(self) -> None:
        """Close every socket."""
        for ref in list(self._listeners):
            self._hang_up(ref)

    def _hang_up(self, ref: EnvironmentRef) -> None:
        for listener in self._listeners.pop(ref, []):
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


class AnsweringCluster(AnsweringEngine, ClusterEngine):
    """The same on several machines."""


def _run_directory(spec: EnvironmentSpec) -> Path:
    return next(mount.source for mount in spec.mounts if mount.target == "/run/devgw")


def _listen(directory: Path, name: str, uid: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    descriptor = os.open(directory, os.O_PATH)
    try:
        listener.bind(f"/proc/self/fd/{descriptor}/{name}")  # sun_path holds 108 bytes, a test's directory has more
    finally:
        os.close(descriptor)
    if os.geteuid() == 0:
        os.chown(directory / name, uid, uid)
    listener.listen()
    threading.Thread(target=_greet, args=(listener, _GREETINGS[name]), daemon=True).start()
    return listener


def _greet(listener: socket.socket, greeting: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # closed
            return
        with connection:
            connection.sendall(greeting)
            connection.settimeout(1)
            connection.recv(4096)
