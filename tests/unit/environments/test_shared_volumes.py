"""The directories of shared volumes: each of a group of its own, and closed to everybody else."""

import os
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.audit.event import Event
from gateway.environments.shared_volumes import SharedByPolicy, SharedDirectory, SharedVolumes, groups_of
from gateway.errors import JournalError, StoreError
from gateway.gate import Gate
from gateway.model import GATEWAY, EnvironmentRef
from gateway.policy import PolicyInForce
from policies.shared import SharedVolume

FIRST_GID = 1_200_000


@pytest.fixture
def volumes(tmp_path: Path) -> SharedVolumes:
    return SharedVolumes(tmp_path, 200_000)


def have(volumes: SharedVolumes, name: str, *, rights: str = "rw") -> SharedDirectory:
    right = "rw" if rights == "rw" else "ro"
    return volumes.have([SharedVolume(name, right)])[0]


@pytest.mark.engine
def test_each_belongs_to_root_and_a_group_of_its_own(volumes: SharedVolumes, tmp_path: Path) -> None:
    """What is made in one may be written to by the group, also with a umask that takes that away."""
    made = have(volumes, "project-x")
    again, other = have(volumes, "project-x"), have(volumes, "corpora")
    assert (made.gid, again.gid, other.gid) == (FIRST_GID, FIRST_GID, FIRST_GID + 1)
    found = made.directory.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, FIRST_GID, 0o2770)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o700
    before = os.umask(0o077)
    try:
        (made.directory / "deep").mkdir()
        (made.directory / "deep/file").touch()
    finally:
        os.umask(before)
    file = (made.directory / "deep/file").stat()
    assert file.st_gid == FIRST_GID
    assert file.st_mode & stat.S_IRWXG == stat.S_IRGRP | stat.S_IWGRP
    assert not file.st_mode & stat.S_IRWXO
    assert groups_of([made, other]) == (FIRST_GID, FIRST_GID + 1)


def test_a_right_to_read_is_a_read_only_mount(volumes: SharedVolumes) -> None:
    assert have(volumes, "project-x", rights="ro").mount.read_only
    assert not have(volumes, "project-x").mount.read_only
    assert have(volumes, "project-x").mount.target == "/shared/project-x"


@pytest.mark.engine
def test_many_that_are_made_at_once_have_as_many_groups(volumes: SharedVolumes) -> None:
    """Each start of an environment may make some."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: have(volumes, f"p{number % 10}"), range(40)))
    assert {one.gid for one in made} == set(range(FIRST_GID, FIRST_GID + 10))
    assert len({(one.name, one.gid) for one in made}) == 10


def test_one_that_was_cut_off_in_its_making_is_made(volumes: SharedVolumes, tmp_path: Path) -> None:
    (tmp_path / "shared/.project-x.new").mkdir(parents=True)
    assert have(volumes, "project-x").directory == tmp_path / "shared/project-x"
    assert not (tmp_path / "shared/.project-x.new").exists()


@pytest.mark.engine
@pytest.mark.parametrize("gid", [0, 100, 200_001])
def test_one_of_a_group_that_others_are_in_is_refused(volumes: SharedVolumes, gid: int) -> None:
    """Its members' processes would be in that group: root's, the host's, or a user's own."""
    made = have(volumes, "project-x")
    os.chown(made.directory, -1, gid)
    with pytest.raises(StoreError, match=f"belongs to group {gid}, in which nobody may be") as caught:
        have(volumes, "project-x")
    assert caught.value.hint.startswith(f"give it one of its own, as root: 'chgrp -R {FIRST_GID}")


POLICY = """
version = 1
default_roles = []
[roles.writers]
shared = {project-x = "rw", corpora = "ro", secret = "rw"}
[roles.readers]
shared = {project-x = "ro"}
[roles.barred]
deny.shared = ["sec*"]
[[grants]]
users = ["alice"]
roles = ["writers", "readers", "barred"]
"""


class Notes:
    """Keeps events; one that is told to fail keeps none."""

    def __init__(self, *, fails: bool = False) -> None:
        self.events: list[Event] = []
        self._fails = fails

    def submit(self, event: Event) -> "Future[None]":
        written: Future[None] = Future()
        if self._fails:
            written.set_exception(JournalError("journal.unwritable", "the disk is full"))
        else:
            self.events.append(event)
            written.set_result(None)
        return written


def by_policy(volumes: SharedVolumes, directory: Path, notes: Notes) -> SharedByPolicy:
    file = directory / "policy.toml"
    file.write_text(POLICY)
    policy = PolicyInForce(file)
    return SharedByPolicy(volumes, policy, Gate(policy.decide, notes))


def test_each_volume_that_a_role_names_is_decided_and_written_down(volumes: SharedVolumes, tmp_path: Path) -> None:
    """With the strongest right, the rule, who started it and which environment it is for; a denied one as well."""
    notes = Notes()
    shared = by_policy(volumes, tmp_path, notes)
    ref = EnvironmentRef("alice", "two")
    expected = {("corpora", False), ("project-x", True)}
    assert {(one.name, one.is_writable) for one in shared.given("alice")} == expected
    assert notes.events == []
    assert {(one.name, one.is_writable) for one in shared.decide(ref, GATEWAY)} == expected
    told = [(one.code, one.detail["name"], one.detail["writes"], one.rule.partition(" ")[0]) for one in notes.events]
    assert told == [
        ("shared.allowed", "corpora", False, "roles.writers.shared.corpora"),
        ("shared.allowed", "project-x", True, "roles.writers.shared.project-x"),
        ("shared.denied", "secret", True, "roles.barred.deny.shared"),
    ]
    assert {(one.environment, one.actor) for one in notes.events} == {(str(ref), GATEWAY)}
    assert not (tmp_path / "shared/secret").exists()


def test_what_cannot_be_written_down_is_not_given(volumes: SharedVolumes, tmp_path: Path) -> None:
    shared = by_policy(volumes, tmp_path, Notes(fails=True))
    with pytest.raises(JournalError):
        shared.decide(EnvironmentRef.parse("alice"), GATEWAY)
    assert not (tmp_path / "shared").exists()
