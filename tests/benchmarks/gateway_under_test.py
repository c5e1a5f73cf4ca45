"""The gateway as it runs in production but for the engine: SQLite, the shipped policy, a journal on disk, uvloop.

`python -m tests.benchmarks.gateway_under_test ROOT` serves the environment that `rig` has started and prints its port.
With `bare` it asks no policy and writes no journal, which shows what these two cost.
"""

import json
import logging
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import uvloop

from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.auth.authority import ensure_key
from gateway.auth.keys import parse_public_key
from gateway.auth.throttle import Throttle
from gateway.config import SshSettings
from gateway.gate import Gate
from gateway.model import Actor, EnvironmentRef, UserName
from gateway.policy import PolicyInForce
from gateway.ssh.server import SshServer, serve
from gateway.ssh.services import Services
from gateway.store.database import Database
from gateway.store.users import Users
from policies.requests import Decision, Request


class OneEnvironment:
    """The one environment, already running; its sockets are at fixed places."""

    def __init__(self, sockets: dict[str, str], host_key: str) -> None:
        self._sockets, self._host_key = sockets, host_key

    def exists(self, ref: EnvironmentRef) -> bool:
        return True

    def ensure_running(self, ref: EnvironmentRef, progress: Callable[[str], None], actor: Actor) -> None:
        """It runs."""

    def dial(self, ref: EnvironmentRef, service: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._sockets[service])
        sock.setblocking(False)
        return sock

    def host_key(self, ref: EnvironmentRef) -> str:
        return self._host_key

    def touch(self, ref: EnvironmentRef, moved_bytes: int) -> None:
        """Nobody asks when it was used."""


class NoJournal:
    """Forgets what it is told."""

    def submit(self, event: Event) -> "Future[None]":
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def close(self) -> None:
        """Nothing is open."""


def allow_all(_request: Request) -> Decision:
    """Decide without looking."""
    return Decision(True, "none", "nothing is asked")


def main(root: Path, *, bare: bool) -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.WARNING)
    told = json.loads((root / "environment.json").read_text())
    users = Users(Database(f"sqlite:///{root / 'devgw.sqlite'}"))
    if not bare:  # the bare one is started beside the other
        users.ensure(UserName("alice"), uid_start=100_000)
        users.add_key(UserName("alice"), parse_public_key((root / "alice.pub").read_text()))
    journal = NoJournal() if bare else Journal(root / "journal")
    decide = allow_all if bare else PolicyInForce(root / "policy.toml").decide
    ensure_key(root / "user_ca", "gateway user CA")
    ensure_key(root / "host_key", "gateway")
    services = Services(
        users,
        OneEnvironment(told["sockets"], told["host_key"]),
        Gate(decide, journal),
        journal,
        Throttle(time.time),
        root / "user_ca",
        (root / "host_key",),
    )
    many = 5000
    settings = SshSettings(
        listen_address="127.0.0.1",
        port=0,
        drain_seconds=0,
        max_startups=f"{many}:30:{many}",
        per_source_max_startups=many,
        per_source_max_connections=many,
        max_connections_per_user=many,
        user_buffer_bytes=many << 20,  # alice stands for all of them
    )

    async def on_started(_server: SshServer, port: int) -> None:
        print(port, flush=True)

    uvloop.run(serve(settings, services, on_started=on_started))
    journal.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), bare=sys.argv[2:] == ["bare"])
