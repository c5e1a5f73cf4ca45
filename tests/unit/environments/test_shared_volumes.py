"""The directories of shared volumes: each of a group of its own, and closed to everybody else."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.environments.shared_volumes import SharedDirectory, SharedVolumes, groups_of
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
