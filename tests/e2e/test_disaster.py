"""The disaster drill: a gateway killed in the middle of writes, its machine lost, and restored from the last backup."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.audit.verify import verify
from tests.support.gateway_process import GatewayProcess, poll

pytestmark = pytest.mark.engine


@contextmanager
def busy(gateway: GatewayProcess) -> Iterator[None]:
    """Let people log in and an administrator change bob's access, all the while."""
    line = " ".join(f"'{word}'" for word in gateway.ssh_command("alice", "true"))
    turns = f'while :; do {line}; "$0" -m gateway user disable bob -q; "$0" -m gateway user enable bob -q; done'
    writers = [
        subprocess.Popen(
            ["bash", "-c", turns, sys.executable],
            env=gateway.environ,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    try:
        yield
    finally:
        for writer in writers:
            os.killpg(writer.pid, signal.SIGKILL)
            writer.wait(timeout=60)


def records(gateway: GatewayProcess) -> int:
    return int(gateway.devgw_json("audit", "verify")["last_seq"])


def lose_the_machine(gateway: GatewayProcess) -> None:
    """Whatever ran is gone with it: processes, state, configuration."""
    for user in ("alice", "bob"):
        gateway.devgw("stop", user)
    for name in ("etc", "state", "run"):
        shutil.rmtree(gateway.root / name, ignore_errors=True)


def test_a_lost_machine_is_restored_from_the_backup_of_a_serving_gateway(fresh_gateway: GatewayProcess) -> None:
    """Keys, host key, passwords, files and journal are there again, and the journal meets the head kept elsewhere."""
    gateway = fresh_gateway
    for user in ("alice", "bob"):
        gateway.create(user)
    gateway.serve()
    assert gateway.ssh("alice", "echo results >~/results").returncode == 0
    head, verifier = gateway.root / "elsewhere.head", gateway.root / "elsewhere.pub"
    backup = gateway.root / "backup"
    with busy(gateway):
        begun = records(gateway)
        poll(lambda: records(gateway) > begun + 8, "records of those who are busy", 60)
        head.write_text(gateway.devgw("audit", "head").stdout)
        verifier.write_text(gateway.devgw("audit", "head", "--verifier").stdout)
        made = gateway.devgw_json("backup", str(backup), "--volumes")
        poll(lambda: records(gateway) > made["records"] + 8, "records after the backup", 60)
        gateway.stop(signal.SIGKILL)
    left = json.loads(gateway.devgw("audit", "log", "-o", "json").stdout.splitlines()[-1])["seq"]
    lose_the_machine(gateway)

    restored = gateway.devgw_json("restore", str(backup), "--head", str(head), "--key", str(verifier))
    assert made["records"] <= restored["records"] < left
    assert restored["proven_seq"] >= int(head.read_text().splitlines()[1])
    gateway.devgw("user", "enable", "bob")
    gateway.serve()
    for user in ("alice", "bob"):
        done = poll(lambda user=user: _logs_in(gateway, user), f"{user}'s login", 120)
        assert done.stdout == f"{user}\n".encode()
    assert gateway.ssh("alice", "cat ~/results").stdout == b"results\n"
    assert gateway.devgw("audit", "verify", "--head", str(head), "--key", str(verifier)).returncode == 0
    assert verify(gateway.root / "state" / "journal").ok
    lines = gateway.devgw("audit", "log", "--action", "backup", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["code"] for line in lines] == ["backup.restored"]


def _logs_in(gateway: GatewayProcess, user: str) -> "subprocess.CompletedProcess[bytes] | None":
    done = gateway.ssh(user, "id -un")
    return done if done.returncode == 0 else None


def test_a_renamed_user_logs_in_under_the_new_name_and_finds_their_files(fresh_gateway: GatewayProcess) -> None:
    """While the gateway serves; the old name is nobody's, and who leaves is in the archive."""
    gateway = fresh_gateway
    gateway.create("alice")
    gateway.serve()
    assert gateway.ssh("alice", "echo kept >~/note").returncode == 0
    gateway.devgw("stop", "alice")
    gateway.devgw("rename", "alice", "alicia")
    (gateway.root / "keys" / "alice").rename(gateway.root / "keys" / "alicia")
    (gateway.root / "keys" / "alice.pub").rename(gateway.root / "keys" / "alicia.pub")
    done = gateway.ssh("alicia", "id -un; pwd; cat ~/note")
    assert done.stdout == b"alicia\n/home/alicia\nkept\n", done.stderr
    assert gateway.ssh("alice", "true").returncode == 255
    gateway.devgw("stop", "alicia")
    archive = gateway.root / "alicia.tar.gz"
    gateway.devgw("user", "delete", "alicia", "--archive", str(archive), "--yes")
    listed = subprocess.run(["tar", "-tzf", archive], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "alicia/main/home/note" in listed.splitlines()
    assert gateway.ssh("alicia", "true").returncode == 255
