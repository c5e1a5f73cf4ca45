"""Bytes and exit codes survive the gateway: exec, sftp, scp (both protocols) and rsync, as on a plain server."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.gateway_process import GatewayProcess

pytestmark = pytest.mark.engine
THREE_MB = 3 * 1024 * 1024


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    file = tmp_path / "payload"
    file.write_bytes(os.urandom(THREE_MB))
    return file


def test_exec_carries_binary_both_ways(gateway: GatewayProcess, payload: Path):
    """`cat` gives back what it was given, byte for byte, and stderr stays apart."""
    done = gateway.ssh("alice", "cat; echo beside >&2; exit 5", stdin=payload.read_bytes())
    assert (done.returncode, done.stderr, done.stdout == payload.read_bytes()) == (5, b"beside\n", True)


@pytest.mark.parametrize("code", [0, 5, 255])
def test_exit_codes_come_back(gateway: GatewayProcess, code: int):
    """The client ends with the remote command's code."""
    assert gateway.ssh("alice", f"exit {code}").returncode == code


def test_a_killed_command_comes_back_as_its_signal(gateway: GatewayProcess):
    """exit-signal reaches the client, which says 255."""
    assert gateway.ssh("alice", "kill -TERM $$").returncode == 255


def test_sftp_round_trip(gateway: GatewayProcess, payload: Path, tmp_path: Path):
    """Put and get by the sftp client."""
    back = tmp_path / "back"
    batch = f"put {payload} sftp-file\nget sftp-file {back}\n".encode()
    done = gateway.copy("sftp", "alice", "-b", "-", "gateway:", stdin=batch)
    assert done.returncode == 0, done.stderr
    assert back.read_bytes() == payload.read_bytes()


@pytest.mark.parametrize("protocol", ["-s", "-O"], ids=["scp over sftp", "scp's own protocol"])
def test_scp_round_trip(gateway: GatewayProcess, payload: Path, tmp_path: Path, protocol: str):
    """Up and down by scp."""
    back = tmp_path / "back"
    up = gateway.copy("scp", "alice", protocol, str(payload), "gateway:scp-file")
    down = gateway.copy("scp", "alice", protocol, "gateway:scp-file", str(back))
    assert (up.returncode, down.returncode) == (0, 0), up.stderr + down.stderr
    assert back.read_bytes() == payload.read_bytes()


def test_rsync_round_trip(gateway: GatewayProcess, payload: Path, tmp_path: Path):
    """Up and down by rsync over this gateway's ssh."""
    back = tmp_path / "back"
    shell = " ".join(["ssh", *gateway.client_options("alice"), "-p", str(gateway.port)])
    for source, target in ((str(payload), "alice@127.0.0.1:rsync-file"), ("alice@127.0.0.1:rsync-file", str(back))):
        subprocess.run(["rsync", "-e", shell, source, target], check=True, timeout=60)
    assert back.read_bytes() == payload.read_bytes()


def test_a_control_master_serves_ten_sessions(gateway: GatewayProcess, tmp_path: Path):
    """Ten commands over one connection, as VS Code and Ansible do."""
    options = ["-o", f"ControlPath={tmp_path}/c", "-o", "ControlMaster=auto", "-o", "ControlPersist=20"]
    base = ["ssh", *gateway.client_options("alice"), *options, "-p", str(gateway.port), "alice@127.0.0.1"]
    subprocess.run([*base, "true"], check=True, timeout=60)
    running = [subprocess.Popen([*base, f"echo {number}"], stdout=subprocess.PIPE) for number in range(10)]
    answers = [client.communicate(timeout=60)[0].decode().strip() for client in running]
    subprocess.run([*base, "-O", "exit"], check=True, capture_output=True, timeout=60)
    assert answers == [str(number) for number in range(10)]


def test_a_terminal_has_the_clients_size(gateway: GatewayProcess):
    """A pty is made with the client's window, and the login shell is alice's."""
    done = gateway.ssh("alice", "-tt", "stty size; whoami; echo $TERM", stdin=b"")
    assert b"alice" in done.stdout, done.stderr
