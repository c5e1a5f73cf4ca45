"""Volumes that several users share by policy, on the real engine: members write together, nobody else sees them."""

import json
import shutil
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess

pytestmark = pytest.mark.engine

POLICY = """
version = 1
default_roles = ["member"]
[roles.member]
sessions = ["shell", "exec", "sftp"]
images = ["*"]
max_memory = "64GiB"
max_cpus = 64
max_environments = 1
[roles.writers]
shared = {project-x = "rw"}
[roles.readers]
shared = {project-x = "ro"}
[roles.barred]
deny.shared = ["project-*"]
[[grants]]
users = ["alice", "bob"]
roles = ["member", "writers"]
[[grants]]
users = ["carol"]
roles = ["member", "readers"]
[[grants]]
users = ["dave"]
roles = ["member", "readers", "barred"]
"""
USERS = ("alice", "bob", "carol", "dave")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    made = GatewayProcess(tmp_path_factory.mktemp("shared"), engine_variables())
    try:
        made.devgw("init")
        (made.root / "etc" / "policy.toml").write_text(POLICY)
        for user in USERS:
            made.create(user)
        made.serve()
        yield made
    finally:
        for user in USERS:
            made.devgw("delete", user, "--force", "--purge", "--yes", expect=None)
        made.close()


def said(gateway: GatewayProcess, user: str, command: str) -> str:
    done = gateway.ssh(user, command)
    return (done.stdout + done.stderr).decode().strip()


def test_members_write_together_and_nobody_else_sees_it(gateway: GatewayProcess) -> None:
    """Whatever umask its maker has, what is made belongs to the group, in directories too."""
    assert said(gateway, "alice", "umask 077; cd /shared/project-x && mkdir deep && echo one >deep/file") == ""
    assert said(
        gateway, "bob", "umask 022; echo two >>/shared/project-x/deep/file; cat /shared/project-x/deep/file"
    ) == ("one\ntwo")
    assert said(gateway, "carol", "cat /shared/project-x/deep/file") == "one\ntwo"
    assert "Read-only file system" in said(gateway, "carol", "touch /shared/project-x/hers")
    assert "No such file" in said(gateway, "dave", "ls /shared/project-x")
    place = gateway.root / "state/shared/project-x"
    group = place.stat().st_gid
    for one in (place, *place.rglob("*")):
        found = one.stat()
        assert found.st_gid == group, one
        assert not found.st_mode & stat.S_IRWXO, one
    assert (place.stat().st_uid, stat.S_IMODE(place.stat().st_mode)) == (0, 0o2770)


def test_who_shares_it_is_the_policys_to_say(gateway: GatewayProcess) -> None:
    """Reading and writing are two questions."""
    assert "carol" in gateway.devgw("who-can", "--shared", "project-x").stdout
    writers = gateway.devgw("who-can", "--shared", "project-x:rw").stdout
    assert ("alice" in writers, "carol" in writers, "dave" in writers) == (True, False, False)


@pytest.mark.emits("shared.allowed", "shared.denied")
def test_who_got_which_and_why_is_in_the_journal(gateway: GatewayProcess) -> None:
    """At each start, with the rule; who may not have what one of their roles names is told there too."""
    before = len(decided(gateway, "shared.allowed"))
    for user in ("carol", "dave"):
        gateway.devgw("stop", user)
        gateway.devgw("start", user)
    assert len(decided(gateway, "shared.allowed")) == before + 1
    last = decided(gateway, "shared.allowed")[-1]
    assert (last["environment"], rule_of(last)) == ("carol", "roles.readers.shared.project-x")
    assert (last["detail"]["name"], last["detail"]["writes"]) == ("project-x", False)
    denied = decided(gateway, "shared.denied")
    assert {(one["environment"], rule_of(one)) for one in denied} == {("dave", "roles.barred.deny.shared")}


def decided(gateway: GatewayProcess, code: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in gateway.devgw("audit", "log", "--action", code, "-o", "json").stdout.splitlines()
    ]


def rule_of(record: dict[str, Any]) -> str:
    """Where in the policy it stands, without the line."""
    return record["rule"].partition(" ")[0]


def test_a_shared_volume_is_there_again_after_the_machine_was_lost(gateway: GatewayProcess) -> None:
    """From a backup with volumes, onto an empty state directory: members read, and write together, as before."""
    place, backup = gateway.root / "state/shared/project-x", gateway.root / "backup"
    group = place.stat().st_gid
    gateway.devgw("backup", str(backup), "--volumes")
    gateway.stop()
    for user in USERS:
        gateway.devgw("stop", user)
    for name in ("etc", "state", "run"):
        shutil.rmtree(gateway.root / name)
    gateway.devgw("restore", str(backup))
    assert (place.stat().st_gid, stat.S_IMODE(place.stat().st_mode)) == (group, 0o2770)
    for user in USERS:
        gateway.devgw("start", user)
    gateway.serve()
    assert said(gateway, "bob", "cat /shared/project-x/deep/file") == "one\ntwo"
    assert said(gateway, "bob", "umask 077; mkdir /shared/project-x/later && echo b >/shared/project-x/later/b") == ""
    assert said(gateway, "alice", "echo a >>/shared/project-x/later/b; cat /shared/project-x/later/b") == "b\na"
    assert "Read-only file system" in said(gateway, "carol", "touch /shared/project-x/hers")
    assert "No such file" in said(gateway, "dave", "ls /shared/project-x")


def test_who_is_no_member_any_more_has_it_no_more_after_a_restart(gateway: GatewayProcess) -> None:
    """Files stay, for those who still are."""
    policy = gateway.root / "etc" / "policy.toml"
    policy.write_text(POLICY.replace('users = ["alice", "bob"]', 'users = ["alice"]'))
    gateway.devgw("stop", "bob")
    gateway.devgw("start", "bob")
    assert "No such file" in said(gateway, "bob", "ls /shared/project-x")
    assert said(gateway, "alice", "cat /shared/project-x/deep/file") == "one\ntwo"
