"""What a real policy says, as real clients meet it: limits, certificates, recordings, and files moved by sftp."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.audit.recording import frames
from gateway.ssh.services import RecordingSettings
from tests.support.policy_under_test import PolicyUnderTest
from tests.support.ssh_clients import Terminal, poll
from tests.support.ssh_gateway import TestGateway

ROLE = """
version = 1
default_roles = ["member"]
[roles.member]
sessions = ["shell", "exec", "sftp"]
permit_open = "any-loopback"
"""
MakeGateway = Callable[[str], TestGateway]


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[MakeGateway]:
    made: list[TestGateway] = []

    def make(text: str) -> TestGateway:
        policy = PolicyUnderTest(text)
        recordings = RecordingSettings(tmp_path / "recordings", 1 << 20)
        gateway = TestGateway(tmp_path, policy.decide, access=policy, recordings=recordings)
        gateway.start()
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        gateway.stop()


def certify(gateway: TestGateway, ca: Path, user: str, *options: str) -> Path:
    """Make a key that nobody has added, with a certificate beside it; return the private key."""
    key = gateway.make_key(f"{user}-certified-{len(list(gateway.root.iterdir()))}")
    command = ["ssh-keygen", "-q", "-s", str(ca), "-I", f"{user}@idp", "-V", "-1m:+1h", *options, f"{key}.pub"]
    subprocess.run(command, check=True, timeout=60)
    return key


def ca_policy(ca: Path, extra: str = "") -> str:
    line = Path(f"{ca}.pub").read_text().strip()
    return (
        ROLE
        + 'certificate_authorities = ["idp"]\n[certificate_authorities.idp]\n'
        + f'public_key = "{line}"\nmax_validity = "2h"\n{extra}\n'
    )


def new_ca(root: Path, name: str) -> Path:
    ca = root / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ca)], check=True, timeout=60)
    return ca


def test_a_certificate_of_a_listed_ca_logs_in(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """With no key in the store; the journal holds the key's fingerprint. The user's own key goes on working."""
    ca = new_ca(tmp_path, "idp")
    gateway = make_gateway(ca_policy(ca))
    own = gateway.add_user("alice")
    key = certify(gateway, ca, "alice", "-n", "alice", "-z", "7")
    assert gateway.run("alice", key, "echo in").stdout == b"in\n"
    shown = subprocess.run(["ssh-keygen", "-lf", f"{key}.pub"], capture_output=True, text=True, check=True, timeout=60)
    assert gateway.recorder.find("login.allowed").actor.key_fingerprint == shown.stdout.split()[1]
    assert gateway.run("alice", own, "echo own").stdout == b"own\n"


REFUSED = [
    ("another-ca", ["-n", "alice"], "", "no key of this user was offered"),
    ("idp", ["-n", "bob"], "", "does not name this user as a principal"),
    ("idp", [], "", "does not name this user as a principal"),
    ("idp", ["-n", "alice", "-z", "7"], "revoked_serials = [7]", "serial 7 is revoked"),
    ("idp", ["-n", "alice"], 'revoked_key_ids = ["alice@idp"]', "is revoked"),
    ("idp", ["-n", "alice", "-O", "source-address=192.0.2.0/24"], "", "not valid from this address"),
    ("idp", ["-n", "alice", "-O", "force-command=id"], "", "critical option"),
    ("idp", ["-n", "alice", "-V", "-2h:-1h"], "", "expired"),
    ("idp", ["-n", "alice", "-V", "-1m:+9h"], "", "longer than its CA may grant"),
    ("idp", ["-n", "alice", "-h"], "", "no key of this user was offered"),
]


@pytest.mark.attack(
    "A6", "a certificate that is expired, revoked, of another CA, a host's, for another principal or address"
)
@pytest.mark.parametrize(("signer", "options", "extra", "reason"), REFUSED)
def test_a_certificate_with_a_fault_stays_outside(
    make_gateway: MakeGateway, tmp_path: Path, signer: str, options: list[str], extra: str, reason: str
) -> None:
    """Each by its own reason in the journal; who is nobody's is told nothing more than a stranger."""
    authorities = {name: new_ca(tmp_path, name) for name in ("idp", "another-ca")}
    gateway = make_gateway(ca_policy(authorities["idp"], extra))
    gateway.add_user("alice", running=False)
    key = certify(gateway, authorities[signer], "alice", *options)
    assert gateway.run("alice", key, "echo in").returncode == 255
    poll(lambda: {"login.denied", "login.refused"} & set(gateway.recorder.codes()), "the refusal")
    refusals = [event.reason for event in gateway.recorder.events if event.code in {"login.denied", "login.refused"}]
    assert any(reason in one for one in refusals), refusals


@pytest.mark.attack("A6", "a terminal that the certificate does not permit")
def test_a_certificate_without_permit_pty_gets_no_terminal(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """What the CA did not permit is refused, though the role would permit it."""
    ca = new_ca(tmp_path, "idp")
    gateway = make_gateway(ca_policy(ca))
    gateway.add_user("alice")
    key = certify(gateway, ca, "alice", "-n", "alice", "-O", "clear")
    assert gateway.run("alice", key, "test -t 0; echo $?", before=("-tt",)).stdout.strip() != b"0"
    assert gateway.run("alice", key, "echo plain").stdout == b"plain\n"


@pytest.mark.attack("D7", "more connections of one user than are permitted")
def test_connections_of_one_user_end_where_the_policy_says(make_gateway: MakeGateway) -> None:
    """The third is refused with the number; another user is not counted."""
    gateway = make_gateway(ROLE + "max_connections = 2\n")
    alice, bob = gateway.add_user("alice"), gateway.add_user("bob")
    server = gateway.server
    assert server is not None
    command = gateway.ssh("alice", alice, "cat")
    held = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    poll(lambda: len(server.registry) == 2, "two connections")
    refused = gateway.run("alice", alice, "echo third")
    assert refused.returncode == 255
    assert b"too many connections open (2 are permitted)" in refused.stderr
    assert gateway.run("bob", bob, "echo bob").stdout == b"bob\n"
    assert [process.communicate(b"kept", timeout=10)[0] for process in held] == [b"kept", b"kept"]


def test_a_terminal_is_recorded_and_a_command_is_not(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """Output only: what is typed without being echoed, a password, is not in the file."""
    gateway = make_gateway(ROLE + "record_sessions = true\n")
    alice = gateway.add_user("alice")
    assert gateway.run("alice", alice, "echo not-recorded").stdout == b"not-recorded\n"
    terminal = Terminal(gateway.ssh("alice", alice, before=("-tt",)))
    terminal.expect("this terminal is recorded")
    terminal.type("stty -echo; echo ready-$((1+1)); read hidden; stty echo; echo shown-$((6*7))\n")
    terminal.expect("ready-2")
    terminal.type("open-sesame\n")
    terminal.expect("shown-42")
    terminal.type("exit\n")
    terminal.wait()
    detail = gateway.recorder.find("session.recorded").detail
    files = list((tmp_path / "recordings" / "alice").iterdir())
    assert [str(path) for path in files] == [detail["file"]]
    assert files[0].stat().st_mode & 0o777 == 0o600
    assert files[0].stat().st_size == detail["bytes"]
    shown = "".join(text for _pause, text in frames(files[0]))
    assert "shown-42" in shown
    assert "open-sesame" not in shown
    assert json.loads(files[0].read_text().splitlines()[0])["version"] == 2


def test_a_session_that_cannot_be_recorded_does_not_begin(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """The directory of the recordings is a file."""
    gateway = make_gateway(ROLE + "record_sessions = true\n")
    alice = gateway.add_user("alice")
    (tmp_path / "recordings").write_text("")
    refused = gateway.run("alice", alice, "echo in", before=("-tt",))
    assert refused.returncode == 125
    assert b"in\r\n" not in refused.stdout
    assert b"the session cannot be recorded" in refused.stdout + refused.stderr


def test_file_operations_of_sftp_are_journaled(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """What OpenSSH's sftp does, in order, with byte counts; and the bytes arrive as they were."""
    gateway = make_gateway(ROLE)
    alice = gateway.add_user("alice")
    content = bytes(range(256)) * 4096
    (tmp_path / "up").write_bytes(content)
    batch = ["mkdir d", "put up d/up", "rename d/up d/moved", "ln -s moved d/link", "chmod 600 d/moved"]
    batch += ["get d/moved down", "rm d/link", "rm d/moved", "rmdir d", "-rmdir nothing"]
    command = ["sftp", "-q", *gateway.options(alice), "-P", str(gateway.port), "-b", "-", "alice@127.0.0.1"]
    done = subprocess.run(
        command, input="\n".join(batch).encode(), cwd=tmp_path, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "down").read_bytes() == content
    gateway.recorder.find("session.closed")
    seen = [(event.code, event.detail) for event in gateway.recorder.events if event.code.startswith("sftp.")]
    changes = [(code.removeprefix("sftp."), detail["ok"]) for code, detail in seen if "ok" in detail]
    assert [change for change in changes if change[0] not in {"opened", "attributes-set"}] == [
        ("made-directory", True),
        ("renamed", True),
        ("linked", True),
        ("removed", True),
        ("removed", True),
        ("removed-directory", True),
        ("removed-directory", False),
    ]
    assert ("attributes-set", True) in changes
    closed = [detail for code, detail in seen if code == "sftp.closed"]
    assert [one["written_bytes"] for one in closed] == [len(content), 0]
    assert [one["read_bytes"] for one in closed] == [0, len(content)]
    assert str(closed[0]["path"]).endswith("d/up")
