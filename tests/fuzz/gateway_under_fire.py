"""A gateway in a process of its own, so that its memory and its log are nobody else's; alice and bob have environments.

`python -m tests.fuzz.gateway_under_fire ROOT SETTINGS` serves until SIGTERM and prints its port. Its limits on one
source are wide, or they would hide what stands behind them; everything else is as shipped.
"""

import asyncio
import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.audit.event_budget import EventBudget
from gateway.audit.journal import Journal
from gateway.audit.read import stream
from gateway.audit.record import Record
from gateway.gate import Gate
from tests.support.host_resources import free_port
from tests.support.ssh_clients import is_listening, poll
from tests.support.ssh_gateway import TestGateway

MANY = 100_000
WIDE = {
    "max_startups": f"{MANY}:30:{MANY}",
    "per_source_max_startups": MANY,
    "per_source_max_connections": MANY,
    "max_connections_per_user": MANY,
}


@dataclass
class GatewayUnderFire:
    """What the attackers and the onlookers know of the process."""

    root: Path
    port: int
    process: "subprocess.Popen[str]"

    def key(self, user: str) -> Path:
        return self.root / f"key-{user}"

    def tell(self, line: str) -> None:
        """Say `disable NAME` or `enable NAME` to the process, as a command of an administrator would."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def log(self) -> str:
        return (self.root / "server.log").read_text()

    def records(self, code: str) -> list[Record]:
        """Return what the journal says so far of one kind."""
        return [record for record in stream(self.root / "journal") if record.code == code]

    def resident_bytes(self) -> int:
        """Return what the process holds in memory now."""
        return self._status("VmRSS:")

    def peak_bytes(self) -> int:
        """Return the most it ever held."""
        return self._status("VmHWM:")

    def descriptors(self) -> int:
        """Return how many files and sockets the process holds open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

    def holds_no_traceback(self) -> bool:
        """Say whether the process lives and its log tells of no exception that nobody expected."""
        return self.process.poll() is None and "Traceback" not in self.log() and "exception" not in self.log()

    def ssh(self, user: str, *arguments: str) -> list[str]:
        """Return an ssh command line; nothing of this machine's own configuration is read."""
        pairs = ["StrictHostKeyChecking=yes", f"UserKnownHostsFile={self.root / 'known_hosts'}", "BatchMode=yes"]
        pairs += ["IdentitiesOnly=yes", "IdentityAgent=none", "ConnectTimeout=15", "GlobalKnownHostsFile=/dev/null"]
        options = [part for pair in pairs for part in ("-o", pair)]
        who = ["-i", str(self.key(user)), "-p", str(self.port), f"{user}@127.0.0.1"]
        return ["ssh", "-F", "none", *options, *arguments, *who]

    @contextmanager
    def tunnel(self, user: str) -> Iterator[int]:
        """Hold `ssh -N -L` to the user's notebook; yield the local port."""
        port = free_port()
        command = self.ssh(user, "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"{port}:localhost:8888")
        client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            poll(lambda: is_listening(port), "the tunnel", 20)
            yield port
        finally:
            client.terminate()
            client.communicate(timeout=10)


@contextmanager
def gateway_under_fire(root: Path, descriptors: int | None = None, **settings: Any) -> Iterator[GatewayUnderFire]:
    """Start the process, with so many descriptors; end it with its environments."""
    command = [sys.executable, "-m", "tests.fuzz.gateway_under_fire", str(root), json.dumps(WIDE | settings)]
    if descriptors:
        command = ["prlimit", f"--nofile={descriptors}:{descriptors}", *command]
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (root / "server.log").read_text()
        yield GatewayUnderFire(root, int(line), process)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
        if process.stdin:
            process.stdin.close()


class JournaledGateway(TestGateway):
    """With the journal of the product, on disk: a list in memory would grow with each attack."""

    def __init__(self, root: Path, **settings: Any) -> None:
        super().__init__(root, **settings)
        self.journal = Journal(root / "journal")
        self.recorder = EventBudget(self.journal)  # type: ignore[assignment]  # the tests of this gateway read the files
        self.services = self._journaled(self.services)

    def _journaled(self, services: Any) -> Any:
        recorder: Any = self.recorder
        return replace(services, recorder=recorder, budget=recorder, gate=Gate(self.decide, recorder))

    def heed(self, lines: Iterable[str]) -> None:
        """Do what is told on standard input: a user is disabled or enabled, and everybody looked at again."""
        for line in lines:
            what, name = line.split()
            users = self.directory.users
            users[name] = replace(users[name], disabled=what == "disable")
            if self.server and what == "disable":
                asyncio.run_coroutine_threadsafe(self.server.recheck(self.decide), self.loop)


def main(root: Path, settings: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    gateway = JournaledGateway(root, **settings)
    try:
        gateway.start()
        for user in ("alice", "bob"):
            gateway.add_user(user)
        gateway.add_user("carol", running=False)
        threading.Thread(target=gateway.heed, args=(sys.stdin,), daemon=True).start()
        print(gateway.port, flush=True)
        ended.wait()
    finally:
        gateway.stop()
        gateway.journal.close()


if __name__ == "__main__":
    asyncio.set_event_loop(None)
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
