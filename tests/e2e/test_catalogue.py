"""Every code of the journal's catalogue happens on a running gateway: one gateway, one small act for each."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.read import Filter, stream
from gateway.audit.record import Record
from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.notebook_client import LoginRefusedError, NotebookClient

pytestmark = [pytest.mark.engine, pytest.mark.slow]

_POLICY = """
version = 1
default_roles = ["member"]
[roles.member]
sessions = ["shell", "exec", "sftp"]
permit_open = "any-loopback"
permit_listen = "none"
accept_env = ["LC_*"]
images = ["*"]
max_environments = 2
max_memory = "256GiB"
max_cpus = 64
max_gpus = 4
max_lease = "1d"
[roles.trusted]
permit_listen = ["9999"]
allow_stream_local_forwarding = "local"
allow_agent_forwarding = true
record_sessions = true
[roles.outside]
deny = {{ login = true }}
[[grants]]
users = ["alice"]
roles = ["member", "trusted"]
[[grants]]
users = ["carol"]
roles = ["outside"]
[[grants]]
users = ["guest"]
roles = ["member"]
until = {until}
"""


class Running(GatewayProcess):
    """A gateway with alice, who holds a GPU, and bob."""

    def records(self, code: str) -> list[Record]:
        return list(stream(self.root / "state" / "journal", Filter(action=code)))

    def expect(self, code: str, act: Callable[[], object], seconds: float = 30) -> Record:
        """Act, and return the record that comes of it."""
        before = len(self.records(code))
        act()
        poll(lambda: len(self.records(code)) > before, code, seconds)
        return self.records(code)[-1]

    def write_policy(self, until: datetime) -> None:
        stamp = until.strftime("%Y-%m-%dT%H:%M:%SZ")
        (self.root / "etc" / "policy.toml").write_text(_POLICY.format(until=stamp))

    @contextmanager
    def broken_table(self, table: str, verb: str) -> Iterator[None]:
        """Have the database refuse to write to a table, as a damaged file would; what reads goes on."""
        with closing(sqlite3.connect(self.root / "state" / "devgw.db", timeout=30)) as database:
            database.execute(f"CREATE TRIGGER broken BEFORE {verb} ON {table} BEGIN SELECT no_such_function(); END")
            database.commit()
            try:
                yield
            finally:
                database.execute("DROP TRIGGER broken")
                database.commit()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("catalogue"), engine_variables())
    try:
        made.devgw("init")
        made.write_policy(datetime.now(UTC) + timedelta(days=1))
        made.create("bob")
        made.serve()
        yield made
    finally:
        made.close()


@pytest.fixture
def alice(running: Running) -> Running:
    """The same gateway, when alice is there."""
    if running.devgw("show", "alice", expect=None).returncode != 0:
        running.create("alice", "--gpu", "1")
    return running


@pytest.mark.emits(
    "create.allowed", "environment.created", "user.created", "key.added", "lease.granted", "lease.queued", "gpu.lost",
    "environment.healed",
)  # fmt: skip
def test_a_create_and_a_wait_for_what_is_taken(running: Running) -> None:
    """Dora wants all four GPUs while alice has one, which is found lost: the tests' GPUs are made up."""
    running.create("alice", "--gpu", "1")
    waits = [*_command("create", "dora", "--gpu", "4", "--key", f"{running.make_key('dora')}.pub")]
    waiting = subprocess.Popen(waits, env=running.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        poll(lambda: running.records("lease.queued"), "dora in the queue", 60)
    finally:
        waiting.terminate()
        waiting.wait(60)
    poll(lambda: running.records("environment.healed"), "alice's environment made anew", 120)


@pytest.mark.emits("create.denied")
def test_a_create_that_the_policy_refuses(running: Running) -> None:
    running.devgw("create", "eve", "--gpu", "5", "--key", f"{running.make_key('eve')}.pub", expect=5)


@pytest.mark.emits(
    "login.allowed", "session.allowed", "session.opened", "session.closed", "connection.closed", "variable.allowed",
    "variable.denied", "session.recorded",
)  # fmt: skip
def test_a_session(alice: Running) -> None:
    """A command, and a terminal that is recorded."""
    variables = ("-o", "SetEnv=LC_ALL=C LD_PRELOAD=x.so")
    command = ["ssh", *variables, *alice.ssh_command("alice", "true")[1:]]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    command = ["ssh", "-tt", *alice.ssh_command("alice", "true")[1:]]
    alice.expect("session.recorded", lambda: subprocess.run(command, capture_output=True, timeout=60, check=False))


@pytest.mark.emits(
    "sftp.opened", "sftp.closed", "sftp.removed", "sftp.renamed", "sftp.made-directory", "sftp.removed-directory",
    "sftp.linked", "sftp.attributes-set",
)  # fmt: skip
def test_file_operations(alice: Running, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    there = (f"put {tmp_path}/file a", "rename a b", "ln -s b c", "chmod 600 b", f"get b {tmp_path}/back")
    steps = (*there, "rm c", "rm b")
    (tmp_path / "batch").write_text("\n".join(steps) + "\nmkdir d\nrmdir d\n")
    done = alice.copy("sftp", "alice", "-b", str(tmp_path / "batch"), "alice@127.0.0.1")
    assert done.returncode == 0, done.stderr


@pytest.mark.emits(
    "forward.allowed", "forward.opened", "forward.closed", "forward.denied", "reverse-forward.allowed",
    "reverse-forward.denied", "streamlocal.allowed", "streamlocal.denied", "agent-forwarding.allowed",
    "agent-forwarding.denied", "channel.refused",
)  # fmt: skip
def test_forwards_and_what_no_policy_permits(alice: Running, tmp_path: Path) -> None:
    """Alice is trusted, bob is not."""
    with alice.tunnel("alice") as port:
        NotebookClient(f"http://127.0.0.1:{port}").http.get(f"http://127.0.0.1:{port}/login", timeout=30)

    def run(user: str, *options: str) -> None:
        command = ["ssh", *options, *alice.ssh_command(user, "true")[1:]]
        subprocess.run(command, capture_output=True, timeout=60, check=False)

    run("alice", "-W", "169.254.169.254:80")
    for user in ("alice", "bob"):
        run(user, "-R", "9999:localhost:1")
        local = tmp_path / f"{user}.sock"
        holder = subprocess.Popen(
            ["ssh", "-L", f"{local}:/tmp/none.sock", *alice.ssh_command(user, "sleep", "20")[1:]],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        poll(local.exists, "the local socket")
        subprocess.run(["socat", "-u", "OPEN:/dev/null", f"UNIX-CONNECT:{local}"], timeout=30, check=False)
        outcome = "streamlocal.allowed" if user == "alice" else "streamlocal.denied"
        poll(lambda outcome=outcome: alice.records(outcome), outcome)
        holder.terminate()
        holder.wait(30)
    with _agent(tmp_path / "agent.sock") as agent:
        for user in ("alice", "bob"):
            run(user, "-A", "-o", f"IdentityAgent={agent}")
    run("bob", "-s")  # a subsystem called "true"


@pytest.mark.emits("login.refused", "login.denied", "session.denied")
def test_who_does_not_get_in(alice: Running) -> None:
    """A key of nobody's, a user whom the policy keeps out, and a kind of session that is not permitted."""
    shutil.copy(alice.make_key("stranger"), alice.root / "keys" / "nobody")
    alice.ssh("nobody", "true")
    text = (alice.root / "etc" / "policy.toml").read_text()
    alice.expect("policy.loaded", lambda: _replace(alice, text.replace('roles = ["outside"]', 'roles = ["member"]')))
    alice.create("carol")
    alice.expect("policy.loaded", lambda: _replace(alice, text))
    alice.ssh("carol", "true")
    alice.expect("policy.loaded", lambda: _replace(alice, text.replace('"shell", "exec", "sftp"', '"shell", "sftp"')))
    alice.expect("session.denied", lambda: alice.ssh("bob", "true"))
    alice.expect("policy.loaded", lambda: _replace(alice, text))


@pytest.mark.emits("policy.loaded", "policy.refused", "user.expired")
def test_a_policy_that_changes(alice: Running) -> None:
    """A faulty one is refused; a grant that ends is said."""
    alice.expect("policy.refused", lambda: _replace(alice, "version = 'faulty'"))
    ends = datetime.now(UTC) + timedelta(seconds=4)
    expired = alice.expect("user.expired", lambda: alice.write_policy(ends), 60)
    assert expired.detail["user"] == "guest"


@pytest.mark.emits("key.removed", "key.failed", "session.revoked", "user.disabled", "user.enabled", "user.failed")
def test_keys_and_users(alice: Running) -> None:
    """A key that goes takes the live session with it."""
    key = f"{alice.make_key('bob')}.pub"
    session = _stays(alice, "bob")
    poll(lambda: any(one["user"] == "bob" for one in alice.devgw_json("sessions", "list")["sessions"]), "bob's session")
    fingerprint = alice.devgw_json("key", "list", "bob")["keys"][0]["fingerprint"]
    revoked = alice.expect("session.revoked", lambda: alice.devgw("key", "remove", "bob", fingerprint))
    session.wait(30)
    assert (revoked.actor["name"], revoked.reason) == ("bob", "the key was removed")
    alice.devgw("key", "add", "bob", key)
    alice.devgw("key", "add", "bob", key, expect=6)
    alice.devgw("user", "disable", "bob")
    alice.devgw("user", "enable", "bob")
    with alice.broken_table("users", "UPDATE"):
        alice.devgw("user", "disable", "bob", expect=None)


@pytest.mark.emits(
    "environment.stopped", "lease.released", "environment.woken", "environment.started", "environment.failed",
    "environment.deleted",
)  # fmt: skip
def test_an_environment_stops_and_wakes(alice: Running) -> None:
    """Dora was ended while she waited: for half a minute more GPUs are kept for her, and alice would get none."""
    poll(lambda: not alice.devgw_json("queue")["queue"], "the end of dora's wait", 60)
    alice.devgw("stop", "alice")
    woken = alice.expect("environment.woken", lambda: alice.ssh("alice", "true"))
    assert (woken.actor["name"], woken.environment) == ("alice", "alice")
    alice.devgw("stop", "alice")
    alice.devgw("start", "alice")
    with alice.broken_table("environments", "UPDATE"):
        alice.devgw("stop", "alice", expect=None)
    alice.create("frank")
    alice.devgw("delete", "frank", "--force", "--yes")


@pytest.mark.emits("password.changed", "password.failed", "notebook.refused", "admin.acted")
def test_a_notebook_password(alice: Running) -> None:
    """A wrong one is counted inside and journaled by the gateway."""
    alice.devgw("passwd", "alice", "--password-stdin", stdin="correct horse battery\n")
    config = alice.root / "state" / "environments" / "alice" / "main" / "config"
    config.rename(config.with_name("away"))
    alice.devgw("passwd", "alice", "--password-stdin", stdin="correct horse battery\n", expect=None)
    config.with_name("away").rename(config)
    with alice.tunnel("alice") as port, pytest.raises(LoginRefusedError):
        NotebookClient(f"http://127.0.0.1:{port}").login("wrong")
    poll(lambda: alice.records("notebook.refused"), "the refusal in the journal", 90)
    alice.devgw("doctor", "alice", expect=None)


@pytest.mark.emits("lease.extended", "lease.failed", "gpu.quarantined", "gpu.restored", "gpu.failed")
def test_leases_and_gpus(alice: Running) -> None:
    gpu = alice.devgw_json("show", "alice")["environment"]["gpus"][0]
    with closing(sqlite3.connect(alice.root / "state" / "devgw.db", timeout=30)) as database:
        database.execute("UPDATE leases SET ends_at = ?", (_stored(datetime.now(UTC) + timedelta(hours=1)),))
        database.commit()
    alice.devgw("extend", "alice", "1h")
    alice.devgw("extend", "alice", "30d", expect=5)
    alice.devgw("gpus", "--quarantine", gpu, "--reason", "test")
    alice.devgw("gpus", "--lift", gpu)
    alice.devgw("gpus", "--lift", gpu, expect=None)


@pytest.mark.emits("session.killed", "session.failed")
def test_sessions_are_ended(alice: Running) -> None:
    def listed() -> list[dict[str, str]]:
        return [one for one in alice.devgw_json("sessions", "list")["sessions"] if one["user"] == "bob"]

    poll(lambda: not listed(), "the end of what bob had before")
    session = _stays(alice, "bob")
    poll(listed, "bob's session")
    with alice.broken_table("kill_requests", "INSERT"):
        alice.devgw("sessions", "kill", listed()[0]["id"], "--yes", expect=None)
    alice.devgw("sessions", "kill", listed()[0]["id"], "--yes")
    session.wait(30)


@pytest.mark.emits("environment.warned", "lease.expired")
def test_a_lease_that_is_over_ends_its_environment(alice: Running) -> None:
    """After warnings that are as short as the settings let them be."""
    short = {"EARLY_WARNING": "2s", "LATE_WARNING": "1s", "STOP_GRACE": "1s", "SAVE_TIME": "1s"}
    alice.stop()
    alice.variables |= {f"DEVGW_ENVIRONMENTS_{name}": value for name, value in short.items()}
    alice.serve()
    alice.devgw("start", "alice")
    with closing(sqlite3.connect(alice.root / "state" / "devgw.db", timeout=30)) as database:
        database.execute("UPDATE leases SET ends_at = ?", (_stored(datetime.now(UTC)),))
        database.commit()
    poll(lambda: alice.records("lease.expired"), "the lease's end", 150)


@pytest.mark.emits(
    "gateway.started", "gateway.stopped", "environment.adopted", "environment.orphaned", "environment.reaped",
    "store.contradicted",
)  # fmt: skip
def test_a_restart_finds_what_runs_and_what_nobody_knows(alice: Running) -> None:
    """Bob runs on; grace's row is gone; a key was put into the database."""
    alice.create("grace")
    alice.stop()
    with closing(sqlite3.connect(alice.root / "state" / "devgw.db", timeout=30)) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute("DELETE FROM environments WHERE user = 'grace'")
        row = ("bob", "SHA256:" + "m" * 43, "ssh-ed25519", 256, "ssh-ed25519 AAAA", "", _stored(datetime.now(UTC)))
        names = "user, fingerprint, algorithm, bits, line, comment, added_at"
        database.execute(f"INSERT INTO public_keys ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608 - a constant
        database.commit()
    alice.serve()
    for code in ("environment.orphaned", "environment.adopted", "store.contradicted"):
        poll(lambda code=code: alice.records(code), code, 60)
    alice.devgw("reap", "--yes")


def _stays(gateway: GatewayProcess, user: str) -> "subprocess.Popen[bytes]":
    """Log in, and stay."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(gateway.ssh_command(user, "sleep", "60"), stdin=quiet, stdout=quiet, stderr=quiet)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


@contextmanager
def _agent(address: Path) -> Iterator[Path]:
    """An agent without keys."""
    running = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL)
    try:
        poll(address.exists, "the agent")
        yield address
    finally:
        running.terminate()
        running.wait(30)


def _replace(gateway: GatewayProcess, text: str) -> None:
    fresh = gateway.root / "etc" / "policy.new"
    fresh.write_text(text)
    fresh.rename(gateway.root / "etc" / "policy.toml")


def _stored(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(" ")
