"""Disks as project quotas on ext4 and XFS, by the kernel's own word."""

import ctypes
import errno
import os
import stat
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from conftest import ALICE, BOB, MIB, UID, Site, as_user, fill

from gateway.environments import project_tree
from gateway.environments.disks import Disks
from gateway.environments.project_quota import KernelQuotas, opened
from gateway.environments.quota_disks import FIRST_PROJECT, QuotaDisks
from gateway.errors import ConflictError
from gateway.model import EnvironmentRef

KERNEL = KernelQuotas()
_CLONE_NEWUSER = 0x10000000


def project_of(place: Path) -> int:
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return KERNEL.project(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """As `mv` does first: by rename(2)."""
    source.rename(target)


def test_where_quotas_are_on_is_told_from_where_they_are_not(site: Site) -> None:
    """Only counted, a file system of memory, and one that enforces them; a place that is not there yet too."""
    assert site.quotas.why_not() == ""
    assert site.disks.chosen_way() == "a project quota"
    assert "counted only" in KERNEL.why_not(Path("/data/counted/not/there"))
    assert "on tmpfs, which has no project quotas" in KERNEL.why_not(Path("/tmp"))
    assert Disks(site.state_dir, quotas=site.quotas, enforcement="none").chosen_way() == ""


def test_a_full_disk_is_full_for_its_owner_alone(site: Site) -> None:
    """The kernel refuses her next byte; bob writes, and so does the gateway beside them. Use is what she wrote."""
    alices, bobs = site.made(ALICE), site.made(BOB)
    full = as_user(partial(fill, alices / "fill"))
    assert full == (errno.ENOSPC if site.kind == "xfs" else errno.EDQUOT)
    found, other = site.disks.use(ALICE), site.disks.use(BOB)
    assert found is not None
    assert other is not None
    assert found.size_bytes == 64 * MIB
    assert 62 * MIB < found.used_bytes <= 64 * MIB
    assert found.percent >= 96
    assert other.used_bytes < MIB
    assert as_user(lambda: (bobs / "file").write_bytes(b"x" * 8 * MIB)) == 8 * MIB
    assert (site.state_dir / "journal").write_bytes(b"x" * 8 * MIB) == 8 * MIB
    assert as_user(lambda: (alices.parent / "logs/more").write_bytes(b"x" * 8 * MIB)) == full
    assert as_user((alices / "fill").unlink) is None
    assert as_user(lambda: (alices / "file").write_bytes(b"x" * 8 * MIB)) == 8 * MIB
    assert set(site.disks.uses()) == {ALICE, BOB}


def test_many_small_files_fill_it_too(site: Site) -> None:
    home = site.made()
    use = site.disks.use(ALICE)
    assert use is not None
    with opened(home.parent) as descriptor:  # as few as can be waited for here
        KERNEL.limit(descriptor, project_of(home.parent), 64 * MIB, 200)

    def make_many() -> None:
        for number in range(1000):
            (home / str(number)).touch()

    assert as_user(make_many) == (errno.ENOSPC if site.kind == "xfs" else errno.EDQUOT)
    found = site.disks.use(ALICE)
    assert found is not None
    assert (found.inodes, found.used_inodes) == (200, 200)
    assert found.percent == 100
    assert use.inodes == 16_384


def test_it_grows_while_it_is_in_use_and_never_shrinks(site: Site) -> None:
    """A file that is open goes on; less is refused with the numbers, and nothing changes."""
    home = site.made()
    with (home / "open").open("wb", buffering=0) as held:
        assert as_user(partial(fill, home / "fill")) is not None
        assert site.volumes() == home.parent  # a full one starts, also on XFS, which bounds root too
        site.disks.grow(ALICE, 128 * MIB, in_use=True)
        held.write(b"x" * MIB)
    assert as_user(lambda: (home / "more").write_bytes(b"x" * 32 * MIB)) == 32 * MIB
    with pytest.raises(ConflictError, match=r"has 128MiB, 9\dMiB of them used: it cannot be made 100MiB") as refused:
        site.disks.grow(ALICE, 100 * MIB, in_use=True)
    assert refused.value.code == "disk.no-shrink"
    assert site.disks.size(ALICE) == 128 * MIB
    with pytest.raises(ConflictError, match="do not fit") as refused:
        site.disks.grow(ALICE, 2**50, in_use=True)
    assert refused.value.code == "disk.no-room"
    site.disks.prepare(ALICE, 64 * MIB)  # a start with what an older store had
    assert site.disks.size(ALICE) == 128 * MIB


def test_nothing_is_carried_from_one_project_into_another(site: Site) -> None:
    """Neither a link nor a rename: what alice has cannot come to be bob's account."""
    alices, bobs = site.made(ALICE), site.made(BOB)
    bobs.chmod(0o777)
    (alices / "file").write_bytes(b"x" * MIB)
    os.chown(alices / "file", UID, UID)
    assert as_user(lambda: os.link(alices / "file", bobs / "link")) == errno.EXDEV
    assert as_user(lambda: move(alices / "file", bobs / "moved")) == errno.EXDEV
    assert as_user(lambda: move(alices / "file", alices.parent / "logs/moved")) is None


def test_df_inside_shows_the_size_that_was_given(site: Site) -> None:
    """The statfs of a volume answers for the project, which is what JupyterLab's status bar shows."""
    home = site.made()
    (home / "file").write_bytes(b"x" * 16 * MIB)
    os.sync()
    found = os.statvfs(home)
    assert found.f_blocks * found.f_frsize == 64 * MIB
    assert 46 * MIB < found.f_bfree * found.f_frsize <= 48 * MIB


def old_tree(site: Site) -> Path:
    """Return a home of before there were disks: links of every kind, a pipe, what is deep, wide and shut."""
    home = site.volumes() / "home"
    outside = site.state_dir / "outside"
    outside.mkdir()
    (outside / "file").write_text("the gateway's")
    (home / "file").write_bytes(b"x" * 5 * MIB)
    os.link(home / "file", home / "same")
    (home / "to-file").symlink_to(outside / "file")
    (home / "to-directory").symlink_to(outside)
    (home / "broken").symlink_to("nowhere")
    os.mkfifo(home / "pipe")
    for number in range(20):
        (home / "wide" / str(number)).mkdir(parents=True)
        (home / "wide" / str(number) / "file").touch()
    deep = home
    for _ in range(40):
        deep = deep / "deeper"
        deep.mkdir()
    (deep / "file").write_bytes(b"x" * MIB)
    (home / "shut").mkdir()
    (home / "shut/file").touch()
    (home / "shut").chmod(0)
    for path in (*home.rglob("*"), home / "shut/file"):
        os.chown(path, UID, UID, follow_symlinks=False)
    os.utime(home / "to-file", (1, 2), follow_symlinks=False)
    return home


def every(home: Path) -> list[Path]:
    """Return what of a tree can be marked."""
    return [path for path in (home, *home.rglob("*")) if not path.is_symlink() and (path.is_dir() or path.is_file())]


def test_a_tree_that_is_there_is_taken_over(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it and nothing else: not what its links lead to. Afterwards its links can be renamed as before."""
    home = old_tree(site)
    monkeypatch.setattr(project_tree, "_NAMES_AHEAD", 4)
    site.disks.prepare(ALICE, 64 * MIB)
    project = project_of(home.parent)
    assert project >= FIRST_PROJECT
    assert {project_of(path) for path in every(home)} == {project}
    assert {project_of(site.state_dir / "outside"), project_of(site.state_dir / "outside/file")} == {0}
    found = site.disks.use(ALICE)
    assert found is not None
    assert 6 * MIB <= found.used_bytes < 7 * MIB
    marked = len(every(home)) - 1  # two of them are one file
    assert found.used_inodes == marked + 3 + 3 + 1  # the links, the other volumes, and the directory they are in
    link = (home / "to-file").lstat()
    assert (home / "to-file").readlink() == site.state_dir / "outside/file"
    assert (link.st_uid, link.st_mtime) == (UID, 2)
    assert stat.S_ISFIFO((home / "pipe").lstat().st_mode)
    assert as_user(lambda: move(home / "to-file", home / "renamed")) is None
    assert as_user((home / "wide/3/new").touch) is None
    assert project_of(home / "wide/3/new") == project
    assert sorted(path.name for path in home.parent.iterdir()) == ["checkpoints", "home", "logs", "workspace"]


def test_another_file_system_in_a_tree_is_left_alone(site: Site) -> None:
    """An administrator's mount in a home is no part of its disk."""
    home = old_tree(site)
    (home / "mounted").mkdir()
    mount, unmount = ["/guest/busybox", "mount", "--bind", "/data/counted", str(home / "mounted")], "umount"
    subprocess.run(mount, check=True, timeout=60)
    try:
        site.disks.prepare(ALICE, 64 * MIB)
        assert project_of(home / "mounted") == 0
    finally:
        subprocess.run(["/guest/busybox", unmount, str(home / "mounted")], check=True, timeout=60)


def test_what_does_not_fit_is_refused_and_stays(site: Site) -> None:
    """With its numbers; with room it is taken over at the next attempt."""
    home = old_tree(site)
    (home / "large").write_bytes(b"x" * 70 * MIB)
    with pytest.raises(ConflictError, match=r"files of 7\d.*MiB, which do not fit a disk of 64MiB") as refused:
        site.disks.prepare(ALICE, 64 * MIB)
    assert refused.value.code == "disk.too-small"
    assert site.disks.size(ALICE) == 0
    assert (home / "large").stat().st_size == 70 * MIB
    site.disks.prepare(ALICE, 128 * MIB)
    found = site.disks.use(ALICE)
    assert found is not None
    assert found.used_bytes > 75 * MIB


class Cut(BaseException):
    """What kill -9 is: no handler of the code sees it."""


class CutKernel(KernelQuotas):
    """Ends before the call of that number which changes anything."""

    def __init__(self, at: int) -> None:
        self.left = at

    def limit(self, descriptor: int, project: int, size_bytes: int, inodes: int) -> None:
        self._step()
        super().limit(descriptor, project, size_bytes, inodes)

    def mark(self, descriptor: int, project: int, *, inherited: bool) -> None:
        self._step()
        super().mark(descriptor, project, inherited=inherited)

    def _step(self) -> None:
        if self.left == 0:
            raise Cut
        self.left -= 1


def test_an_end_at_any_step_leaves_a_tree_that_is_taken_over_whole(site: Site) -> None:
    """Each attempt marks anew what the one before had marked; no file is of two projects' in the end."""
    home = old_tree(site)
    for at in range(0, 600, 11):
        numbered = QuotaDisks(site.state_dir, site.numbers, kernel=CutKernel(at))
        try:
            numbered.prepare(ALICE, 64 * MIB)
        except Cut:
            assert site.disks.size(ALICE) == 0, at
        else:
            break
    else:
        pytest.fail("it never got through")
    assert at > 50
    assert {project_of(path) for path in every(home)} == {project_of(home.parent)}
    found = site.disks.use(ALICE)
    assert found is not None
    assert 6 * MIB <= found.used_bytes < 7 * MIB
    assert sorted(path.name for path in home.parent.iterdir()) == ["checkpoints", "home", "logs", "workspace"]


def test_a_number_is_free_after_a_purge_and_given_to_nobody_again(site: Site) -> None:
    """Nor to others after the store has lost its memory: files that carry it keep it."""
    first = project_of(site.made().parent)
    site.disks.remove(ALICE)
    with opened(site.volumes()) as descriptor:
        assert KERNEL.record(descriptor, first).limit_bytes == 0
    second = project_of(site.made(BOB).parent)
    assert second != first
    site.open_store("fresh.db")
    carol = EnvironmentRef.parse("carol")
    third = project_of(site.made(carol).parent)
    assert third not in {first, second}
    assert site.disks.size(BOB) == 64 * MIB


def test_an_empty_disk_goes_with_its_environment_and_one_with_files_stays(site: Site) -> None:
    site.made()
    site.disks.release(ALICE)
    assert not (site.state_dir / "volumes/alice").exists()
    (site.made() / "file").write_text("hers")
    site.disks.release(ALICE)
    assert site.disks.size(ALICE) == 64 * MIB
    assert site.disks.all() == [ALICE]


def test_a_rename_takes_the_size_along(site: Site) -> None:
    """The directory says what it is, not its name."""
    (site.made() / "file").write_bytes(b"x" * MIB)
    (site.state_dir / "volumes/alice").rename(site.state_dir / "volumes/alicia")
    found = site.disks.use(EnvironmentRef.parse("alicia"))
    assert found is not None
    assert found.size_bytes == 64 * MIB


def test_a_user_leaves_their_project_only_outside_of_user_namespaces(site: Site) -> None:
    """Why `auto` trusts bubblewrap, which has its users in one, and not Docker, which has them in the host's."""
    home = site.made()
    file = home / "file"
    assert as_user(lambda: file.write_bytes(b"x")) == 1

    def leave() -> None:
        descriptor = os.open(file, os.O_RDONLY)
        KERNEL.mark(descriptor, 0, inherited=False)

    def stop_giving() -> None:
        with opened(home) as descriptor:
            KERNEL.mark(descriptor, project_of(home), inherited=False)

    def in_user_namespace(act: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER) == 0
            act()

        return run

    for act in (leave, stop_giving):
        assert as_user(in_user_namespace(act)) == errno.EINVAL
    assert project_of(file) == project_of(home) >= FIRST_PROJECT
    assert as_user(leave) is None
    assert project_of(file) == 0


def test_an_ordinary_user_sets_no_limits(site: Site) -> None:
    home = site.made()

    def unbound() -> None:
        with opened(home) as descriptor:
            KERNEL.limit(descriptor, project_of(home), 0, 0)

    assert as_user(unbound) == errno.EPERM
    assert site.disks.size(ALICE) == 64 * MIB
