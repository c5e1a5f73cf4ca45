"""`python -m tests.support.receive_inside ROOT CA_KEY -- ARGS`: rsync's other end inside a test environment.

It is the receiver that a gateway before a cluster has; only what it starts and dials is the test's own.
"""

import socket
import sys
from pathlib import Path

from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.model import Actor, EnvironmentRef
from gateway.operations.receiving import InsideReceiver


class OneEnvironment(EnvironmentLifecycle):
    """An environment that runs already, by the directory of its sockets."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def start(self, ref: EnvironmentRef, *_arguments: object, is_filled: bool = False, **_rest: object) -> None:  # type: ignore[override]
        """Note how it was asked for."""
        (self._root / "started").write_text(f"{ref} {is_filled}")

    def host_key(self, _ref: EnvironmentRef) -> str:
        return (self._root / "host_key.pub").read_text()

    def dial(self, _ref: EnvironmentRef, service: str) -> socket.socket:  # type: ignore[override]
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self._root / f"{service}.sock"))
        sock.setblocking(False)
        return sock

    def touch(self, _ref: EnvironmentRef, _moved_bytes: int) -> None:
        """Nobody counts here."""


if __name__ == "__main__":
    root, key = Path(sys.argv[1]), Path(sys.argv[2])
    receiver = InsideReceiver(OneEnvironment(root), lambda: key, Actor("admin", "root"))
    sys.exit(receiver.receive(EnvironmentRef.parse("alice"), "home", sys.argv[sys.argv.index("--") + 1 :]))
