"""Two workers behind one port, real ssh on a real engine: what one costs when it dies, and what reaches both."""

import hashlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

import policies
from gateway.audit.read import Filter, stream
from gateway.audit.record import Record
from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.host_resources import free_port
from tests.support.ssh_clients import is_listening

pytestmark = pytest.mark.engine
WITHIN_SECONDS = 2.0
CONNECTIONS_MAX = 6
ECHO_PORT = 9123
ECHO = (
    "import socketserver\n"
    "class Echo(socketserver.BaseRequestHandler):\n"
    "    def handle(self):\n"
    "        while data := self.request.recv(65536): self.request.sendall(data)\n"
    f"socketserver.ThreadingTCPServer(('127.0.0.1', {ECHO_PORT}), Echo).serve_forever()\n"
)
POLICY = (Path(policies.__file__).parent / "default.toml").read_text()
WITHOUT_ALICE = f"""{POLICY}
[roles.nobody]
deny = {{ login = true }}
[[grants]]
users = ["alice"]
roles = ["nobody"]
"""


class Site(GatewayProcess):
    """A gateway of two workers."""

    def rows(self, user: str = "") -> dict[str, int]:
        """Return connections, of all or of a user, and for each the process that holds it, as the store has it."""
        query = "SELECT id, pid FROM live_sessions WHERE ? IN ('', user)"
        with closing(sqlite3.connect(self.root / "state" / "devgw.db")) as database:
            return {key: pid for key, pid in database.execute(query, (user,)) if Path(f"/proc/{pid}").exists()}

    def workers(self) -> set[int]:
        """Return the processes that serve: the children of the parent."""
        assert self.server is not None
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()
        return {int(pid) for pid in children}

    def first(self) -> int:
        """Return the process that is the first worker now, as the log has it."""
        return int(re.findall(r"worker 0 is process (\d+)", (self.root / "server.log").read_text())[-1])

    def await_started(self, count: int = 2) -> None:
        """Wait until so many more than before say in the journal that they listen."""
        self.started += count
        poll(lambda: len(self.records("gateway.started")) == self.started, "the start of all workers")
        assert len(self.workers()) == 2

    started = 0

    def records(self, code: str) -> list[Record]:
        return list(stream(self.root / "state" / "journal", Filter(action=code)))

    @contextmanager
    def held(
        self, user: str, remote: str = f"localhost:{ECHO_PORT}"
    ) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
        """Hold a tunnel; yield its local port and the client."""
        port = free_port()
        argv = self.ssh_command(user, "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:{remote}")
        client = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            poll(lambda: is_listening(port) or client.poll() is not None, f"the tunnel of {user}")
            yield port, client
        finally:
            client.terminate()
            client.communicate(timeout=60)

    @contextmanager
    def held_by(self, user: str, wanted: set[int]) -> Iterator[tuple[int, int, "subprocess.Popen[bytes]"]]:
        """Hold a tunnel of one of these workers; yield process, local port and client. The kernel spreads at random."""
        with ExitStack() as stack:
            while True:
                kept = stack.enter_context(ExitStack())
                before = self.rows(user).keys()
                port, client = kept.enter_context(self.held(user))
                [new] = poll(lambda known=before: self.rows(user).keys() - known, f"the row of {user}")
                pid = self.rows(user)[new]
                if pid in wanted:
                    break
                kept.close()
                poll(lambda gone=new: gone not in self.rows(user), f"the end of the row of {user}")
            yield pid, port, client

    def spread(self, user: str, stack: ExitStack) -> list["subprocess.Popen[bytes]"]:
        """Hold a connection of a user in each worker; return their clients."""
        return [stack.enter_context(self.held_by(user, {pid}))[2] for pid in self.workers()]


class Echo(threading.Thread):
    """Sends through a tunnel and compares what comes back, until told to stop or something is wrong."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._stop_wanted = threading.Event()
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.rounds = 0
        self.fault = ""
        self.start()

    def run(self) -> None:
        block = b""
        try:
            while not self._stop_wanted.is_set():
                block = hashlib.sha256(block).digest() * 1024
                self._connection.sendall(block)
                back = b"".join(iter(self._piece(len(block)).__next__, b""))
                if back != block:
                    self.fault = f"{len(back)} other bytes in round {self.rounds}"
                    return
                self.rounds += 1
        except OSError as exc:
            self.fault = str(exc)

    def _piece(self, size: int) -> Iterator[bytes]:
        while size and (piece := self._connection.recv(size)):
            size -= len(piece)
            yield piece
        yield b""

    def stop(self) -> None:
        self._stop_wanted.set()
        self.join(20)
        self._connection.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    limits = {"DEVGW_SERVER_WORKERS": "2", "DEVGW_SERVER_MAX_CONNECTIONS_PER_USER": str(CONNECTIONS_MAX)}
    made = Site(tmp_path_factory.mktemp("gateway"), engine_variables() | limits)
    try:
        made.devgw("init")
        made.create("alice")
        made.create("bob")
        made.serve()
        made.await_started()
        for user in ("alice", "bob"):
            assert made.ssh(user, "cat >/tmp/echo.py && (setsid python3 /tmp/echo.py >/dev/null 2>&1 </dev/null &)",
                            stdin=ECHO.encode()).returncode == 0  # fmt: skip
            argv = (user, f"until (exec 3<>/dev/tcp/127.0.0.1/{ECHO_PORT}) 2>/dev/null; do :; done")
            assert made.ssh(argv[0], f"timeout 20 bash -c '{argv[1]}'").returncode == 0
        poll(lambda: not made.rows(), "the end of these connections")
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("which", ["first", "other"])
def test_a_killed_worker_costs_its_own_connections_alone(site: Site, which: str) -> None:
    """The first worker, which has the gateway's duties, or another: bob's bytes go on, new logins work at once."""
    victims = {site.first()} if which == "first" else site.workers() - {site.first()}
    with site.held_by("alice", victims) as (victim, _, alice), site.held_by("bob", site.workers() - victims) as held:
        _, port, bob = held
        listed = {one["user"]: one["channels"] for one in site.devgw_json("sessions", "list")["sessions"]}
        assert set(listed) == {"alice", "bob"}
        echo = Echo(port)
        poll(lambda: echo.rounds > 10, "bytes of bob's")
        os.kill(victim, signal.SIGKILL)
        assert alice.wait(10) == 255
        assert site.ssh("alice", "echo back").stdout == b"back\n"
        rounds = echo.rounds
        site.await_started(1)
        assert victim not in site.workers()
        poll(lambda: echo.rounds > rounds + 10, "more bytes of bob's")
        poll(lambda: [one["user"] for one in site.devgw_json("sessions", "list")["sessions"]] == ["bob"], "bob alone")
        echo.stop()
        assert echo.fault == ""
        assert bob.poll() is None
    assert f"(process {victim}) was killed by signal 9" in (site.root / "server.log").read_text()
    site.devgw("audit", "verify")


def test_a_users_connections_are_counted_in_all_workers_together(site: Site) -> None:
    """The limit is one, whichever worker has the connections."""
    with ExitStack() as stack:
        for _ in range(CONNECTIONS_MAX):
            stack.enter_context(site.held("bob"))
        poll(lambda: len(site.rows("bob")) == CONNECTIONS_MAX, "all rows")
        refused = site.ssh("bob", "true")
        assert refused.returncode == 255
        assert f"too many connections open ({CONNECTIONS_MAX} are permitted)" in str(site.records("login.refused")[-1])
        assert site.ssh("alice", "echo in").stdout == b"in\n"
    poll(lambda: not site.rows(), "the end of these connections")


def test_a_reload_reaches_every_worker(site: Site) -> None:
    """Both take the policy anew at SIGHUP; a narrowed one ends alice's sessions in both within 2 s, and no other."""
    assert site.server is not None
    before = len(site.records("policy.loaded"))
    site.server.send_signal(signal.SIGHUP)
    poll(lambda: len(site.records("policy.loaded")) == before + 2, "both have loaded the policy")
    file = site.root / "etc" / "policy.toml"
    old = file.read_text() if file.exists() else None
    with ExitStack() as stack, site.held_by("bob", site.workers()) as (_, _, bob):
        clients = site.spread("alice", stack)
        beside = file.with_suffix(".new")
        beside.write_text(WITHOUT_ALICE)
        beside.rename(file)
        site.server.send_signal(signal.SIGHUP)
        began = time.monotonic()
        for client in clients:
            client.wait(10)
        assert time.monotonic() - began < WITHIN_SECONDS
        assert site.ssh("alice", "true").returncode == 255
        assert bob.poll() is None
    beside.write_text(old or POLICY)
    beside.rename(file)
    poll(lambda: site.ssh("alice", "true").returncode == 0, "alice's return")
    poll(lambda: not site.rows(), "the end of these connections")


def test_a_worker_that_begins_under_a_faulty_policy_file_decides_as_the_others(site: Site) -> None:
    """They keep the old policy; a crash is no reason to serve with one process less."""
    file = site.root / "etc" / "policy.toml"
    good = file.read_text()
    file.write_text("version = 'faulty'\n")
    poll(lambda: len(site.records("policy.refused")) == 2, "both have refused it")
    os.kill(site.first(), signal.SIGKILL)
    site.await_started(1)
    with ExitStack() as stack:
        site.spread("alice", stack)
    file.write_text(good)
    poll(lambda: not site.rows(), "the end of these connections")


def test_a_stop_drains_every_worker(site: Site) -> None:
    """Nobody new is taken; sessions in both go on until they end by themselves; the last head covers all."""
    assert site.server is not None
    with ExitStack() as stack:
        clients = site.spread("alice", stack)
        site.server.send_signal(signal.SIGTERM)
        poll(lambda: not is_listening(site.port), "the end of listening")
        assert [client.poll() for client in clients] == [None, None]
        assert site.server.poll() is None
    assert site.server.wait(30) == 0
    assert len(site.records("gateway.stopped")) >= 2
    site.devgw("audit", "verify")
    site.serve()
    site.await_started()


def test_workers_whose_parent_was_killed_make_way(site: Site) -> None:
    """They drain as at a stop, and another gateway can have the port."""
    workers = site.workers()
    site.stop(signal.SIGKILL)
    poll(lambda: not is_listening(site.port), "the end of listening")
    for pid in workers:
        poll(lambda pid=pid: "State:\tZ" in _status(pid), f"the end of {pid}")
    site.serve()
    site.await_started()
    assert site.ssh("alice", "echo in").stdout == b"in\n"


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "State:\tZ"
