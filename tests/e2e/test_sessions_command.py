"""`devgw sessions` on a real gateway: who is connected, and an end to it that nobody else notices (ADR 0006)."""

import http.client
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.audit.read import Filter, stream
from gateway.audit.record import Record
from gateway.operations.administrator import administrator
from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.ssh_clients import is_listening

pytestmark = pytest.mark.engine
WITHIN_SECONDS = 2.0
REASON = "maintenance until noon"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Alice and bob without GPUs: an environment whose made-up GPU is found lost is made anew, tunnel or not."""
    made = GatewayProcess(tmp_path_factory.mktemp("gateway"), engine_variables())
    try:
        made.devgw("init")
        made.create("alice")
        made.create("bob")
        made.serve()
        yield made
    finally:
        made.close()


@pytest.fixture
def session(gateway: GatewayProcess) -> Iterator["subprocess.Popen[bytes]"]:
    """Alice's ssh with a command that does not end by itself."""
    argv = gateway.ssh_command("alice", "echo in; sleep 600")
    client = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == b"in\n"
    yield client
    client.kill()
    client.communicate(timeout=60)


def listed(gateway: GatewayProcess, user: str, count: int = 1) -> list[dict[str, Any]]:
    """Return a user's connections once there are so many."""

    def seen() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = gateway.devgw_json("sessions", "list", "--user", user)["sessions"]
        return found if len(found) == count and all(one["channels"] for one in found) else None

    return poll(seen, f"{count} connections of {user} with a channel")  # type: ignore[no-any-return]


def record_of(gateway: GatewayProcess, code: str, connection: str) -> Record:
    """Return what the journal has of a connection."""
    found = stream(gateway.root / "state" / "journal", Filter(action=code))
    return next(record for record in found if record.detail["connection"] == connection)


def rows(gateway: GatewayProcess) -> int:
    """Return how many connections the store holds, of whatever process."""
    with closing(sqlite3.connect(gateway.root / "state" / "devgw.db")) as database:
        return int(database.execute("SELECT count(*) FROM live_sessions").fetchone()[0])


def test_a_killed_connection_ends_with_the_reason_and_nobody_else_notices(
    gateway: GatewayProcess, session: "subprocess.Popen[bytes]"
):
    """Alice's ssh is gone within 2 s, journal and screen say why; one TCP connection in bob's tunnel carries on."""
    with gateway.tunnel("bob") as port, ThreadPoolExecutor() as pool:
        notebook = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        notebook.request("GET", "/login")
        notebook.getresponse().read()
        kept = notebook.sock
        [alice], [bob] = listed(gateway, "alice"), listed(gateway, "bob")
        assert (alice["address"], alice["environment"]) == ("127.0.0.1", "alice")
        assert alice["channels"] == ["session exec echo in; sleep 600"]
        assert bob["channels"] == ["forward localhost:8888"]
        assert alice["fingerprint"] != bob["fingerprint"]
        gateway.devgw("sessions", "kill", alice["id"], expect=2)  # nobody is there to confirm it

        ended = pool.submit(lambda: (session.communicate(timeout=30)[1], datetime.now(UTC)))
        done = gateway.devgw("sessions", "kill", alice["id"], "--yes", "--reason", REASON)
        shown, at = ended.result()
        assert done.stdout == f"ended: {alice['id']} of alice\n"
        assert f"ended by an administrator: {REASON}".encode() in shown
        assert session.returncode == 255
        killed, closed = (record_of(gateway, code, alice["id"]) for code in ("session.killed", "connection.closed"))
        assert (at - killed.at).total_seconds() < WITHIN_SECONDS
        assert (killed.actor["kind"], killed.actor["name"]) == ("admin", administrator().name)
        assert (killed.environment, killed.detail["user"], killed.detail["reason"]) == ("alice", "alice", REASON)
        assert (closed.actor["name"], closed.reason) == ("alice", f"ended by an administrator: {REASON}")

        notebook.request("GET", "/login")
        assert notebook.getresponse().status == 200
        assert notebook.sock is kept
        assert [one["id"] for one in gateway.devgw_json("sessions", "list")["sessions"]] == [bob["id"]]
        gone = gateway.devgw("sessions", "kill", bob["id"], alice["id"], "--yes", expect=4)
        assert "'devgw sessions list' shows" in gone.stderr
        assert [one["id"] for one in listed(gateway, "bob")] == [bob["id"]]


def test_all_connections_of_a_user_end_at_once(gateway: GatewayProcess, session: "subprocess.Popen[bytes]"):
    """A command and a tunnel; afterwards alice may come back."""
    with gateway.tunnel("alice") as port:
        notebook = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        notebook.request("GET", "/login")
        notebook.getresponse().read()
        ids = {one["id"] for one in listed(gateway, "alice", 2)}
        done = gateway.devgw_json("sessions", "kill", "--user", "alice", "--yes")
        assert {one["id"] for one in done["ended"]} == ids
        assert b"ended by an administrator" in session.communicate(timeout=30)[1]
    assert gateway.devgw_json("sessions", "list", "--user", "alice")["sessions"] == []
    assert gateway.ssh("alice", "echo back").stdout == b"back\n"
    gateway.devgw("sessions", "kill", "--user", "nobody-known", "--yes", expect=4)


def test_what_a_killed_gateway_left_behind_is_not_shown(gateway: GatewayProcess, session: "subprocess.Popen[bytes]"):
    """Not while it is away, where nobody can be ended, and not by the next one."""
    [alice] = listed(gateway, "alice")
    gateway.stop(signal.SIGKILL)
    try:
        done = gateway.devgw("sessions", "list")
        assert alice["id"] not in done.stdout
        assert "nobody is connected" in done.stderr
        gateway.devgw("sessions", "kill", alice["id"], "--yes", expect=4)
    finally:
        gateway.serve()
    assert gateway.devgw_json("sessions", "list")["sessions"] == []


def test_a_gateway_that_stops_leaves_nobody_on_the_list(gateway: GatewayProcess, session: "subprocess.Popen[bytes]"):
    """Its rows are removed, not only passed over."""
    listed(gateway, "alice")
    assert rows(gateway) == 1
    assert gateway.server is not None
    gateway.server.send_signal(signal.SIGTERM)
    poll(lambda: not is_listening(gateway.port), "the end of listening")
    gateway.stop()  # once more: it does not wait for alice
    try:
        assert rows(gateway) == 0
    finally:
        gateway.serve()
