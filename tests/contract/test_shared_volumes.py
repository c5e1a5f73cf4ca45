"""Shared volumes on both engines: members of different users write together, whoever is not in the group does not."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.environments.shared_volumes import SharedDirectory, SharedVolumes, groups_of
from gateway.model import EnvironmentRef, Mount
from policies.shared import SharedVolume
from tests.contract.bubblewrap_subject import bubblewrap_under_test
from tests.contract.docker_subject import docker_under_test
from tests.contract.inside import Spool
from tests.contract.subject import UID, EngineUnderTest, started
from tests.support.host_resources import next_uid

pytestmark = pytest.mark.engine
BOBS_UID, CAROLS_UID = next_uid(2), next_uid()
SUBJECTS = {"docker": docker_under_test, "bubblewrap": bubblewrap_under_test}


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "bubblewrap"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    with SUBJECTS[request.param](tmp_path) as made:
        yield made


def member(engine: EngineUnderTest, handle: str, uid: int, shared: SharedDirectory, groups: tuple[int, ...]) -> Spool:
    """Start an environment of a user with the volume in it."""
    run = engine.run_directory(EnvironmentRef.parse(handle))
    os.chown(run, uid, uid)
    mounts = (Mount(run, "/run/devgw"), shared.mount)
    return started(engine, handle, uid=uid, gid=uid, mounts=mounts, groups=groups)


def require_that_the_mount_decides(engine: EngineUnderTest, tmp_path: Path) -> None:
    """Where all are one user there are no groups to give, and none is needed: who may not, has it not, or read-only."""
    volumes = SharedVolumes(tmp_path, 200_000)
    written, read = volumes.have([SharedVolume("project-x", "rw"), SharedVolume("project-x", "ro")])
    for place in (written.directory.parent, written.directory):
        os.chown(place, UID, UID)  # as a gateway that is that user makes it
    writing, reading = member(engine, "alice", UID, written, ()), member(engine, "bob", UID, read, ())
    assert writing.run("echo one >/shared/project-x/file").code == 0
    assert reading.run("cat /shared/project-x/file").text == "one\n"
    assert "Read-only file system" in reading.run("touch /shared/project-x/his").text


def test_members_write_together_and_nobody_else_enters(engine: EngineUnderTest, tmp_path: Path) -> None:
    """A umask of 077 takes nothing from the others; a right to read is no more; without the group it is closed."""
    if engine.keeps_one_user:
        require_that_the_mount_decides(engine, tmp_path)
        return
    volumes = SharedVolumes(tmp_path, 200_000)
    written, read = volumes.have([SharedVolume("project-x", "rw"), SharedVolume("project-x", "ro")])
    groups = groups_of([written])
    alice = member(engine, "alice", UID, written, groups)
    assert alice.run("umask 077; cd /shared/project-x && mkdir deep && echo one >deep/file").code == 0
    reading = member(engine, "bob", BOBS_UID, read, groups)
    assert reading.run("cat /shared/project-x/deep/file").text == "one\n"
    assert "Read-only file system" in reading.run("touch /shared/project-x/his").text
    writing = member(engine, "bob+writing", BOBS_UID, written, groups)
    assert writing.run("echo two >>/shared/project-x/deep/file && echo more >/shared/project-x/deep/another").code == 0
    assert alice.run("cat /shared/project-x/deep/file && rm /shared/project-x/deep/another").text == "one\ntwo\n"
    carol = member(engine, "carol", CAROLS_UID, written, ())
    assert "Permission denied" in carol.run("ls /shared/project-x").text
    for place in (written.directory, *written.directory.rglob("*")):
        found = place.stat()
        assert found.st_gid == written.gid, place
        assert not found.st_mode & stat.S_IRWXO, place
