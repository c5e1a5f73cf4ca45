"""Two gateways, each a process of its own, on one PostgreSQL database: what one costs when it dies, and what is common.

No engine is needed: users are connected, and nothing runs in their environments.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.audit.read import Filter, stream
from gateway.model import UserName
from gateway.store.database import Database
from gateway.store.login_tallies import LoginTallyTable
from gateway.store.users import Users
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.host_resources import free_port
from tests.support.postgresql_server import PostgresqlServer, postgresql_server
from tests.support.ssh_clients import is_listening

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BALANCER = "127.0.0.9"
"""From where the balancer connects; nobody else's word about a client's address is taken."""
WITHIN_SECONDS = 2.0
TAKEN_OVER_WITHIN_SECONDS = 10.0
_TRIES_OF_A_BAN = 10


@dataclass
class Gateway(GatewayProcess):
    """One of several with one state directory and one database."""

    name: str = "gw"
    url: str = ""
    clients: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.variables |= {
            "DEVGW_DATABASE_URL": self.url,
            "DEVGW_SITE_INSTANCE": self.name,
            "DEVGW_SITE_ID": "lab",
            "DEVGW_RUN_DIR": str(self.root / f"run-{self.name}"),
            "DEVGW_ENGINE_KIND": "bubblewrap",
            "DEVGW_GPUS_INVENTORY": "none",
            "DEVGW_SERVER_PROXY_PROTOCOL_FROM": f"{BALANCER}/32",
        }

    @contextmanager
    def connected(self, user: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Hold a connection of a user, once the site knows of it."""
        before = {one["id"] for one in self.sessions()}
        client = subprocess.Popen(self.ssh_command(user, "-N"), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            poll(lambda: {one["id"] for one in self.sessions()} - before, f"the session of {user}")
            yield client
        finally:
            client.kill()
            client.communicate(timeout=60)

    def sessions(self) -> list[dict[str, str]]:
        return list(self.devgw_json("sessions", "list")["sessions"])

    def codes(self, action: str) -> list[str]:
        directory = self.root / "state" / "gateways" / self.name / "journal"
        return [record.code for record in stream(directory, Filter(action=action))]

    def leads(self) -> bool:
        """Say whether the last word of its log is that it leads."""
        log = self.log.read_text()
        return log.rfind("this gateway leads:") > log.rfind("leads no longer")

    @property
    def log(self) -> Path:
        return self.root / f"{self.name}.log"


@dataclass
class TwoGateways:
    """Both, with their database's server and two users."""

    server: PostgresqlServer
    one: Gateway
    other: Gateway

    @contextmanager
    def behind_one_address(self) -> Iterator[int]:
        """Run HAProxy before both; yield its port."""
        port, file = free_port(), self.one.root / "haproxy.cfg"
        servers = "".join(
            f"  server {one.name} 127.0.0.1:{one.port} send-proxy-v2 check inter 200ms fall 1 rise 1\n"
            for one in (self.one, self.other)
        )
        file.write_text(
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n"
            "  retries 3\n  option redispatch\n"
            f"listen ssh\n  bind 127.0.0.1:{port}\n  source {BALANCER}\n  balance roundrobin\n{servers}"
        )
        program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "tests/setup/install installs it"
        balancer = subprocess.Popen([program, "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
        try:
            poll(lambda: is_listening(port), "the balancer")
            yield port
        finally:
            balancer.kill()
            balancer.wait(timeout=60)

    def command(self, port: int, user: str, source: str, *arguments: str) -> list[str]:
        """Return the argv of ssh from an address to the balancer."""
        options = [*self.one.client_options(user), "-o", f"BindAddress={source}"]
        return ["ssh", *options, "-p", str(port), f"{user}@127.0.0.1", *arguments]

    def revoke(self, user: str) -> None:
        self.one.devgw("user", "disable", user)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TwoGateways]:
    """Both start first at once, on a database without tables."""
    with postgresql_server() as server, ExitStack() as stack:
        url = server.empty_database()
        several = []
        for name in ("gw1", "gw2"):
            gateway = Gateway(tmp_path, name=name, url=url)
            several.append(gateway)
            stack.callback(lambda one=gateway: one.server and one.stop(signal.SIGKILL))
        for gateway in several:
            gateway.begin()
        for gateway in several:
            gateway.await_greeting()
        users = Users(Database(url))
        for name in ("alice", "bob"):
            users.ensure(UserName(name), uid_start=several[0].uid_start)
            several[0].devgw("key", "add", name, f"{several[0].make_key(name)}.pub")
        yield TwoGateways(server, *several)


def ended_within(clients: list["subprocess.Popen[bytes]"], seconds: float) -> list[float]:
    """Return after how long each client ended."""
    began, ends = time.monotonic(), {}
    while len(ends) < len(clients) and time.monotonic() - began < seconds:
        ends |= {one.pid: time.monotonic() - began for one in clients if one.poll() is not None and one.pid not in ends}
        time.sleep(0.01)
    return sorted(ends.values())


def test_a_killed_gateway_costs_its_own_users_alone_and_they_are_back_at_the_other(site: TwoGateways) -> None:
    """Bob at the other notices nothing. The one that led is killed: the one that is left leads within seconds."""
    leading = poll(lambda: next((one for one in (site.one, site.other) if one.leads()), None), "one that leads")
    left = site.other if leading is site.one else site.one
    assert not left.leads()
    with leading.connected("alice") as alice, left.connected("bob") as bob:
        assert {one["user"] for one in leading.sessions()} == {"alice", "bob"}
        assert {one["user"] for one in left.sessions()} == {"alice", "bob"}
        leading.stop(signal.SIGKILL)
        poll(left.leads, "another that leads", TAKEN_OVER_WITHIN_SECONDS)
        alice.wait(timeout=30)
        with left.connected("alice"):
            assert bob.poll() is None
            poll(lambda: [one["user"] for one in left.sessions()].count("alice") == 1, "the end of a dead row")


def test_a_revocation_and_a_kill_end_sessions_at_both(site: TwoGateways) -> None:
    """Within two seconds of the command, whichever gateway's command line it was."""
    with (
        site.one.connected("alice") as here,
        site.other.connected("alice") as there,
        site.other.connected("bob") as bob,
    ):
        poll(lambda: sum(one["user"] == "bob" for one in site.one.sessions()) == 1, "bob in the list, once")
        [wanted] = [one["id"] for one in site.one.sessions() if one["user"] == "bob"]
        site.one.devgw("sessions", "kill", wanted, "--yes")
        assert len(ended_within([bob], WITHIN_SECONDS)) == 1
        site.revoke("alice")
        assert len(ended_within([here, there], WITHIN_SECONDS)) == 2
    assert "session.revoked" in site.one.codes("session")
    assert "session.revoked" in site.other.codes("session")
    verified = site.other.devgw_json("audit", "verify")
    assert (set(verified["chains"]), verified["store"], verified["missing"]) == ({"gw1", "gw2"}, [], [])
    lines = site.one.devgw("audit", "log", "--action", "gateway.started", "-o", "json").stdout
    assert all(f'"gateway":"{name}"' in lines for name in ("gw1", "gw2"))


def test_failed_logins_are_counted_in_common(site: TwoGateways) -> None:
    """Half of a guesser's tries at each gateway: banned at both, although neither saw as many as a ban takes."""
    key, counted = site.one.make_key("mallory"), LoginTallyTable(Database(site.one.url), "throttle")

    def failures() -> int:
        return max((row.failures for _source, row in counted.since(0)[1]), default=0)

    def guess(gateway: Gateway) -> bytes:
        own = str(gateway.make_key("alice"))
        command = [part if part != own else str(key) for part in gateway.ssh_command("alice", "true")]
        return subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).stderr

    for number in range(_TRIES_OF_A_BAN - 1):
        guess((site.one, site.other)[number % 2])
        poll(lambda so_far=number + 1: failures() == so_far, "what was counted in the database")
    for _ in range(2):  # where the last was not heard of yet, the second is the tenth
        guess(site.one)
    poll(lambda: any(row.bans for _source, row in counted.since(0)[1]), "the ban in the database")
    assert b"too many failed logins" in guess(site.one)
    few = _TRIES_OF_A_BAN // 2  # with the four before, too few for a ban of the other's own
    assert any(b"too many failed logins" in guess(site.other) for _ in range(few))


def test_those_in_stay_in_while_the_database_is_away_and_all_goes_on_by_itself(site: TwoGateways) -> None:
    """New logins are told why; afterwards they get in, and one of the two leads again."""
    with site.one.connected("alice") as alice, site.other.connected("bob") as bob:
        site.server.stop()
        refused = site.one.ssh("alice", "true")
        assert refused.returncode == 255
        assert b"the gateway cannot decide logins at the moment" in refused.stderr
        absent = site.one.devgw("sessions", "list", expect=1)
        assert "cannot use the database" in absent.stderr
        assert (alice.poll(), bob.poll()) == (None, None)
        site.server.start()
        with site.other.connected("alice"):
            assert (alice.poll(), bob.poll()) == (None, None)
        assert {one["user"] for one in site.one.sessions()} == {"alice", "bob"}
        site.revoke("bob")
        assert len(ended_within([bob], WITHIN_SECONDS)) == 1


def test_behind_one_address_the_client_is_known_and_back_at_once(site: TwoGateways) -> None:
    """The balancer names the client to sessions, journal and bans; who was at the killed gateway is at the other.

    A guesser's ban is the guesser's own, although all come from the balancer.
    """
    alice, mallory = "127.0.0.5", "127.0.0.6"
    with site.behind_one_address() as port:
        stay = site.command(port, "alice", alice, "-N")
        first = subprocess.Popen(stay, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        [session] = poll(site.one.sessions, "alice's session")
        assert session["address"] == alice
        key, own = str(site.one.make_key("mallory")), str(site.one.make_key("alice"))
        guess = [part if part != own else key for part in site.command(port, "alice", mallory, "true")]
        tries = (
            subprocess.run(guess, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).stderr
            for _ in range(2 * _TRIES_OF_A_BAN)  # each alone bans after as many
        )
        assert any(b"too many failed logins" in said for said in tries)
        serving = next(one for one in (site.one, site.other) if "login.allowed" in one.codes("login"))
        left = site.other if serving is site.one else site.one
        serving.stop(signal.SIGKILL)
        first.wait(timeout=30)
        again = subprocess.Popen(stay, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            poll(lambda: "login.allowed" in left.codes("login"), "alice at the other", TAKEN_OVER_WITHIN_SECONDS)
            assert again.poll() is None
        finally:
            again.kill()
            again.wait(timeout=60)
