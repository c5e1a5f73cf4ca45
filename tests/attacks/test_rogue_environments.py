"""Row E: an environment whose sshd its own user has stopped or replaced."""

import subprocess
from pathlib import Path

import pytest

from gateway.audit.read import stream
from gateway.ssh.upstream import pool
from tests.fuzz.gateway_under_fire import JournaledGateway
from tests.support.processes import running
from tests.support.ssh_clients import poll

PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@pytest.mark.emits("environment.cut")
@pytest.mark.attack("E24", "one's own sshd stopped with SIGSTOP, and more than it may leave unread")
def test_an_environment_that_stops_reading_is_cut_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's session ends, the journal has the reason, and bob works on."""
    monkeypatch.setattr(pool, "UNREAD_MAX_BYTES", 64 << 10)
    gateway = JournaledGateway(tmp_path)
    gateway.start()
    try:
        alice, bob = gateway.add_user("alice"), gateway.add_user("bob")
        [hers] = [each for ref, each in gateway.environments.by_ref.items() if ref.user == "alice"]
        # Not before it is stopped: what it had read would fill the channel's window, and nothing more would be sent.
        inside = "(kill -STOP $PPID; touch ~/stopped; sleep 60; kill -CONT $PPID) & sleep 70"
        with running(gateway.ssh("alice", alice, inside), **PIPES) as client:
            poll((hers.home / "stopped").exists, "the stopped sshd", 20)
            _, errors = client.communicate(bytes(64 << 20), timeout=20)
        assert client.returncode != 0
        assert b"the connection to your environment was lost" in errors

        def cuts() -> list[str]:
            return [record.reason for record in stream(tmp_path / "journal") if record.code == "environment.cut"]

        assert poll(cuts, "the record of the cut") == [pool.UNREAD]
        assert gateway.run("bob", bob, "echo on").stdout == b"on\n"
    finally:
        gateway.stop()
