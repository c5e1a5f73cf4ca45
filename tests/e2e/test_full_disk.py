"""A gateway whose disk is full to the last byte, filled by one user: the others work, administrators can act.

State, journal, database and the environments' volumes lie on one small file system, as on many a small host.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.audit.verify import verify
from gateway.disk import BALLAST_BYTES
from tests.support.engine_variables import engine_kind, engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.small_disk import SmallDisk, docker_pid, small_disk

pytestmark = pytest.mark.engine

MEBIBYTES = 160
FILL = "cat /dev/zero >~/fill 2>/dev/null; sync; while printf x >>~/fill; do :; done 2>/dev/null; echo full"


@dataclass(frozen=True)
class FullDisk:
    """A served gateway with alice, bob and carol, whose disk alice fills."""

    gateway: GatewayProcess
    disk: SmallDisk

    def fill(self, user: str = "alice") -> None:
        """Let a user write until nothing more goes in; then what root may still take, too."""
        assert b"full" in self.gateway.ssh(user, FILL).stdout
        self.disk.fill("rest")
        assert self.disk.free_bytes == 0

    def free(self) -> None:
        """Give the room back, as when alice removes her file."""
        (self.disk.path / "rest").unlink(missing_ok=True)
        for file in self.disk.path.rglob("home/fill"):
            file.unlink()

    def codes(self) -> list[str]:
        lines = self.gateway.devgw("audit", "log", "-o", "json").stdout.splitlines()
        return [json.loads(line)["code"] for line in lines]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullDisk]:
    place = tmp_path_factory.mktemp("full")
    engine = docker_pid(os.environ["DOCKER_HOST"]) if engine_kind() == "docker" else None
    with small_disk(place, MEBIBYTES, "ext4", also_for=engine) as disk:
        gateway = GatewayProcess(place / "gateway", engine_variables() | {"DEVGW_STATE_DIR": str(disk.path / "state")})
        try:
            gateway.devgw("init")
            for user in ("alice", "bob", "carol"):
                gateway.create(user)
            gateway.serve()
            yield FullDisk(gateway, disk)
        finally:
            (disk.path / "rest").unlink(missing_ok=True)
            gateway.close()


@pytest.mark.attack("H6", "one user fills the disk that everybody's homes and the gateway's state lie on")
def test_one_full_home_shuts_nobody_out_and_bans_nobody(full: FullDisk) -> None:
    """Bob logs in twelve times of twelve; with room back he still does, and is no more suspect than before."""
    full.fill()
    try:
        answers = [full.gateway.ssh("bob", "echo in") for _ in range(12)]
    finally:
        full.free()
    assert [(answer.stdout, answer.returncode) for answer in answers] == [(b"in\n", 0)] * 12, answers
    assert full.gateway.ssh("bob", "echo in").stdout == b"in\n"
    assert not {"source.banned", "login.refused"} & set(full.codes())
    reserve = full.disk.path / "state/reserve"
    poll(lambda: reserve.exists() and reserve.stat().st_blocks * 512 >= BALLAST_BYTES, "the reserve made again")


@pytest.mark.attack("H6", "a full disk: shutting out, stopping and purging still work, and are journaled")
def test_administrators_shut_out_stop_and_purge_on_a_full_disk(full: FullDisk) -> None:
    """And who is shut out is out within two seconds, on the full disk."""
    gateway = full.gateway
    command = gateway.ssh_command("carol", "echo in; exec sleep 300")
    held = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert held.stdout is not None
    assert held.stdout.readline() == b"in\n"
    full.fill()
    try:
        gateway.devgw("user", "disable", "carol")
        _out, said = held.communicate(timeout=10)
        assert b"closed" in said
        assert gateway.ssh("carol", "echo in").stdout == b""
        fingerprint = gateway.devgw_json("key", "list", "bob")["keys"][0]["fingerprint"]
        gateway.devgw("key", "remove", "bob", fingerprint)
        assert gateway.ssh("bob", "echo in").stdout == b""
        gateway.devgw("stop", "alice")
        gateway.devgw("delete", "carol", "--force", "--purge", "--yes")
        codes = full.codes()
    finally:
        full.free()
    assert {"user.disabled", "key.removed", "environment.stopped", "environment.deleted"} <= set(codes)
    assert verify(full.disk.path / "state/journal").ok
    assert not (full.disk.path / "state/volumes/carol").exists()
    gateway.devgw("key", "add", "bob", f"{gateway.make_key('bob')}.pub")
    assert gateway.ssh("bob", "echo in").stdout == b"in\n"


def test_nothing_half_made_is_left_of_what_a_full_disk_refuses(full: FullDisk) -> None:
    """A new environment is refused with the reason."""
    full.fill("bob")
    try:
        made = full.gateway.devgw("create", "dave", "--key", f"{full.gateway.make_key('dave')}.pub", expect=1)
        assert "no space" in made.stderr or "disk is full" in made.stderr, made.stderr
    finally:
        full.free()
    assert "dave" not in full.gateway.devgw("list").stdout
    assert full.gateway.create("dave")


@pytest.mark.attack("H6", "a user who takes every byte that becomes free, again and again")
def test_a_user_who_takes_every_free_byte_is_shut_out_and_stopped(full: FullDisk) -> None:
    """What administrators need is the gateway's before it is needed: there is no race to lose."""
    gateway = full.gateway
    gateway.devgw("user", "enable", "alice")
    gateway.devgw("start", "alice")
    greedy = "nohup sh -c 'while :; do cat /dev/zero >>~/fill; done' >/dev/null 2>&1 & echo begun"
    assert gateway.ssh("alice", greedy).stdout == b"begun\n"
    try:
        poll(lambda: full.disk.free_bytes < 2**16, "a full disk", 60)
        gateway.devgw("user", "disable", "alice")
        gateway.devgw("stop", "alice")
    finally:
        full.free()
    assert {"user.disabled", "environment.stopped"} <= set(full.codes()[-10:])
    assert verify(full.disk.path / "state/journal").ok
    assert gateway.ssh("bob", "echo in").stdout == b"in\n"


def test_administrators_can_act_and_the_gateway_starts_on_a_full_disk(full: FullDisk) -> None:
    """While no gateway runs, the room kept for administrators is given up, and the gateway comes up with it."""
    gateway = full.gateway
    full.fill("bob")
    gateway.stop()
    try:
        gateway.devgw("user", "disable", "bob")
        gateway.serve()
        assert gateway.ssh("bob", "echo in").stdout == b""
        gateway.devgw("user", "enable", "bob")
    finally:
        full.free()
    assert gateway.ssh("bob", "echo in").stdout == b"in\n"
    assert verify(full.disk.path / "state/journal").ok
