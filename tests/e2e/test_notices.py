"""What would otherwise go wrong in silence is said to the user."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Laboratory
from tests.support.environment_inside import LOOPBACK_PORT
from tests.support.host_resources import free_port
from tests.support.ssh_clients import end, is_listening, poll
from tests.support.ssh_gateway import TestGateway

TAKEN = f"a server of yours has port {LOOPBACK_PORT} inside".encode()


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestGateway, Path]]:
    """A gateway whose notebook port is the one that a server of alice's had first."""
    gateway = TestGateway(tmp_path_factory.mktemp("gw"), notebook_port=LOOPBACK_PORT)
    gateway.start()
    try:
        key = gateway.add_user("alice", running=False)
        environment = next(iter(gateway.environments.by_ref.values()))
        (environment.root / "environment.json").write_text(json.dumps({"notebook_port": LOOPBACK_PORT}))
        environment.start()
        yield gateway, key
    finally:
        gateway.stop()


def test_a_terminal_hears_of_a_server_that_has_the_notebooks_port(masked: tuple[TestGateway, Path]) -> None:
    """At each login; a command's streams stay its own."""
    gateway, key = masked
    for _ in range(2):
        shown = gateway.run("alice", key, "sleep 1", before=["-tt"])
        assert TAKEN in shown.stdout + shown.stderr
    assert gateway.run("alice", key, "sleep 1").stderr == b""


def test_a_forward_without_a_session_hears_of_it_too(masked: tuple[TestGateway, Path], tmp_path: Path) -> None:
    """`ssh -N -L` has no terminal: it is a debug message then, which OpenSSH shows with -v only."""
    gateway, key = masked
    local = free_port()
    forward = gateway.ssh("alice", key, before=["-v", "-N", "-L", f"127.0.0.1:{local}:localhost:{LOOPBACK_PORT}"])
    with (tmp_path / "said").open("wb") as said:
        client = subprocess.Popen(forward, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        poll(lambda: is_listening(local), "the tunnel")
        poll(lambda: TAKEN in (tmp_path / "said").read_bytes(), "the notice")
    finally:
        end(client)


def test_nobody_hears_of_it_where_the_port_is_free(laboratory: Laboratory) -> None:
    """Or where the image is older than the question."""
    shown = laboratory.gateway.run("alice", laboratory.alice, "sleep 1", before=["-tt"])
    assert (shown.stdout, shown.stderr.replace(b"Connection to 127.0.0.1 closed.\r\n", b"")) == (b"", b"")


@pytest.mark.parametrize(
    "command",
    [
        "mkdir -p ~/.ssh && cat >> ~/.ssh/authorized_keys",
        'cat >>"$HOME/.ssh/authorized_keys"',
        "tee -a .ssh/authorized_keys",
        "echo ssh-ed25519 AAAA alice >> ~/.ssh/authorized_keys",
        'AUTH_KEY_FILE=".ssh/authorized_keys"; mkdir -p .ssh && cat >> "${AUTH_KEY_FILE}"',
        "cat > .ssh/authorized_keys",
        "tee .ssh/authorized_keys",
    ],
)
def test_adding_a_key_to_a_file_that_nothing_reads_is_answered(laboratory: Laboratory, command: str) -> None:
    """It fails, with how keys are added, and the journal has it."""
    done = laboratory.gateway.run("alice", laboratory.alice, command, input=b"ssh-ed25519 AAAA alice\n")
    assert done.returncode not in {0, 255}
    assert b"devgw key add alice FILE" in done.stderr
    refused = [event for event in laboratory.gateway.recorder.events if event.code == "channel.refused"]
    assert refused[-1].detail == {"kind": "authorized-keys", "asked": command}


@pytest.mark.parametrize("mode", [[], ["-s"]], ids=["by a command", "by sftp"])
def test_ssh_copy_id_fails_and_says_how_keys_are_added(laboratory: Laboratory, tmp_path: Path, mode: list[str]) -> None:
    """Not `Number of key(s) added: 1` for a key that opens nothing."""
    key = laboratory.gateway.make_key(f"another-{tmp_path.name}")
    home = Path(tempfile.mkdtemp())  # of a short name: ssh-copy-id keeps a socket in it
    (home / ".ssh").mkdir()
    options = laboratory.gateway.options(laboratory.alice)[2:]  # it has no -F of its own in every version
    pairs = [word for place, word in enumerate(options) if "-o" in options[max(0, place - 1) : place + 1]]
    command = ["ssh-copy-id", *mode, "-f", "-i", f"{key}.pub", "-p", str(laboratory.gateway.port), *pairs]
    command += ["-o", f"IdentityFile={laboratory.alice}", "alice@127.0.0.1"]
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(home)}
    done = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )
    shutil.rmtree(home)
    assert done.returncode != 0, done.stdout
    assert done.stderr.count(b"devgw key add alice FILE") == 1
    assert b"key(s) added" not in done.stdout
    assert laboratory.gateway.run("alice", laboratory.alice, "cat ~/.ssh/authorized_keys").stdout == b""


@pytest.mark.parametrize("copy", [["scp"], ["scp", "-O"], ["rsync", "-e"]], ids=["scp", "scp's old protocol", "rsync"])
def test_copying_a_key_there_is_answered_too(laboratory: Laboratory, tmp_path: Path, copy: list[str]) -> None:
    """With nothing written."""
    (tmp_path / "id.pub").write_text("ssh-ed25519 AAAA alice\n")
    options, port = laboratory.gateway.options(laboratory.alice), str(laboratory.gateway.port)
    command = [*copy, f"ssh {' '.join(options)} -p {port}"] if copy[0] == "rsync" else [*copy, *options, "-P", port]
    command += [str(tmp_path / "id.pub"), "alice@127.0.0.1:.ssh/authorized_keys"]
    assert laboratory.gateway.run("alice", laboratory.alice, "mkdir -p .ssh").returncode == 0
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    assert b"devgw key add alice FILE" in done.stderr
    assert laboratory.gateway.run("alice", laboratory.alice, "cat .ssh/authorized_keys").stdout == b""


def test_a_home_that_is_copied_with_such_a_file_in_it_arrives(laboratory: Laboratory, tmp_path: Path) -> None:
    """The line is said, and everything copied: it is the person's own file beside others."""
    home = tmp_path / "copied"
    (home / ".ssh").mkdir(parents=True)
    (home / "a").write_text("first")
    (home / ".ssh" / "authorized_keys").write_text("ssh-ed25519 AAAA alice\n")
    batch = f"put {home / 'a'} a\nmkdir copied\nput -r {home}/.ssh copied\n"
    options = laboratory.gateway.options(laboratory.alice)
    command = ["sftp", "-b", "-", *options, "-P", str(laboratory.gateway.port), "alice@127.0.0.1"]
    done = subprocess.run(command, input=batch.encode(), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count(b"devgw key add alice FILE")) == (0, 1), done.stderr
    read = laboratory.gateway.run("alice", laboratory.alice, "cat copied/.ssh/authorized_keys; rm -r copied").stdout
    assert read == b"ssh-ed25519 AAAA alice\n"


@pytest.mark.parametrize(
    "command",
    [
        "cat ~/.ssh/authorized_keys",
        "ls .ssh",
        "grep x < ~/.ssh/authorized_keys",
        "cat ~/.ssh/authorized_keys >> all_keys",
        "ssh elsewhere 'cat >> ~/.ssh/authorized_keys'",
        "cp ~/.ssh/authorized_keys kept",
        "rsync --server --sender -logDtpre.iLsfxCIvu . .ssh/authorized_keys </dev/null",
        "tee authorized_keys.md </dev/null",
    ],
)
def test_reading_that_file_is_nobodys_business(laboratory: Laboratory, command: str) -> None:
    """Only what would add a key in vain is answered."""
    assert b"devgw: " not in laboratory.gateway.run("alice", laboratory.alice, command).stderr
