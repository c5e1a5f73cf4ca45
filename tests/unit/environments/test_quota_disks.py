"""Disks as project quotas: which way a disk is kept, whose number is whose, and a walk that leaves its tree never.

What the kernel does of it is tried in the guest of `tests/quota`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.environments import project_tree
from gateway.environments.disk_limit import LEAST_BYTES
from gateway.environments.disks import Disks
from gateway.environments.layout import Layout
from gateway.environments.project_tree import mark_tree
from gateway.environments.quota_disks import FIRST_PROJECT, QuotaDisks
from gateway.errors import ConflictError, StoreError
from gateway.model import EnvironmentRef
from gateway.removal import remove_tree
from tests.fakes.kernel_quotas import FakeQuotas

ALICE, BOB = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob")
PROJECT = FIRST_PROJECT + 6


class Numbers:
    """The store's promise, in memory."""

    def __init__(self) -> None:
        self.held: dict[EnvironmentRef, int] = {}
        self.last = 0

    def allot(self, ref: EnvironmentRef) -> int:
        if ref not in self.held:
            self.last += 1
            self.held[ref] = self.last
        return self.held[ref]

    def give_up(self, ref: EnvironmentRef) -> None:
        self.held.pop(ref, None)


class Site:
    """A gateway's disks, as the setting and the host have it."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.kernel = FakeQuotas()
        self.numbers = Numbers()

    def disks(self, enforcement: str = "auto", *, leave: str = "", images: str = "no images") -> Disks:
        quotas = QuotaDisks(self.state_dir, self.numbers, lambda: leave, self.kernel)
        return Disks(self.state_dir, why_not=lambda: images, quotas=quotas, enforcement=enforcement)

    def home(self, ref: EnvironmentRef = ALICE) -> Path:
        layout = Layout.of(self.state_dir, ref)
        layout.make(os.getuid(), os.getgid())
        return layout.volumes / "home"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize(
    ("enforcement", "quotas", "leave", "images", "way", "why_not"),
    [
        # the best that there is
        ("auto", "", "", "", "a project quota", ""),
        ("auto", "off", "", "", "an ext4 image", ""),
        ("auto", "off", "", "no root", "", "no root"),
        # a quota that its user could leave is none, unless it is asked for
        ("auto", "", "could leave", "", "an ext4 image", ""),
        ("auto", "", "could leave", "no root", "", "no root"),
        ("project-quota", "", "could leave", "", "a project quota", ""),
        # what is asked for, or nothing
        ("project-quota", "off", "", "", "", "off"),
        ("image", "", "", "", "an ext4 image", ""),
        ("image", "", "", "no root", "", "no root"),
        ("none", "", "", "", "", "environments.disk_enforcement is none"),
    ],
)
def test_the_way_of_a_new_disk_is_chosen(
    site: Site, enforcement: str, quotas: str, leave: str, images: str, way: str, why_not: str
) -> None:
    """A quota before an image before nothing, and the reason is of what was wanted."""
    site.kernel.reason = quotas
    found = site.disks(enforcement, leave=leave, images=images)
    assert (found.chosen_way(), found.why_not()) == (way, why_not)


def test_what_keeps_a_disk_is_said(site: Site) -> None:
    """In a line, in a cell and under the names of JSON: as of an image."""
    site.disks().prepare(ALICE, LEAST_BYTES)
    (site.home() / "file").write_bytes(b"x" * 2**20)
    state = site.disks().state(ALICE, LEAST_BYTES)
    assert state.text.startswith("64MiB, 1MiB of 64MiB used, 6 of 16384 inodes, kept by a project quota")
    assert state.short == "64MiB 1%"
    assert (state.document["disk_kept_by"], state.document["disk_is_enforced"]) == ("a project quota", True)
    assert set(site.disks().uses()) == {ALICE}


def test_where_quotas_go_off_that_is_said_and_nothing_moves(site: Site) -> None:
    """A mount option that was forgotten at a boot: it starts, unbounded, and every view says so."""
    site.disks().prepare(ALICE, LEAST_BYTES)
    site.kernel.reason = "quotas are off"
    found = site.disks(images="")
    found.prepare(ALICE, LEAST_BYTES)
    assert found.state(ALICE, LEAST_BYTES).text == "64MiB, not enforced: quotas are off"
    assert not found.image(ALICE).exists()
    with pytest.raises(StoreError, match="quotas are off") as refused:
        found.grow(ALICE, 2 * LEAST_BYTES, in_use=False)
    assert refused.value.code == "disk.unenforced"
    site.kernel.reason = ""
    assert site.disks().size(ALICE) == LEAST_BYTES


def test_who_has_an_image_keeps_it(site: Site) -> None:
    """Its files are there, whatever this host could do for a new one."""
    image = site.disks().image(ALICE)
    image.parent.mkdir(parents=True)
    image.touch()
    with pytest.raises(StoreError) as refused:
        site.disks(images="not root").prepare(ALICE, LEAST_BYTES)
    assert refused.value.code == "disk.not-root"
    assert site.numbers.held == {}


def test_a_first_size_waits_for_the_environment_to_stop(site: Site) -> None:
    """What runs may write where the walk has been already."""
    (site.home() / "file").write_text("hers")
    with pytest.raises(ConflictError, match="become a project of their own") as refused:
        site.disks().grow(ALICE, LEAST_BYTES, in_use=True)
    assert refused.value.code == "environment.running"
    assert site.numbers.held == {}
    site.disks().grow(ALICE, LEAST_BYTES, in_use=False)
    site.disks().grow(ALICE, 2 * LEAST_BYTES, in_use=True)
    assert site.disks().size(ALICE) == 2 * LEAST_BYTES


@pytest.mark.parametrize(("size_bytes", "code"), [(LEAST_BYTES - 1, "disk.too-small"), (2**60, "disk.no-room")])
def test_a_size_that_cannot_be_is_refused_and_leaves_nothing(site: Site, size_bytes: int, code: str) -> None:
    with pytest.raises(ConflictError) as refused:
        site.disks().prepare(ALICE, size_bytes)
    assert refused.value.code == code
    site.disks().release(ALICE)
    assert (site.numbers.held, site.disks().size(ALICE)) == ({}, 0)


def test_a_limit_that_was_lost_is_set_again(site: Site) -> None:
    """As after the quota files of a file system were made anew."""
    site.disks().prepare(ALICE, LEAST_BYTES)
    site.kernel.limits.clear()
    assert site.disks().state(ALICE, LEAST_BYTES).text == "64MiB, not enforced: from its next start on"
    site.disks().prepare(ALICE, LEAST_BYTES)
    assert site.disks().size(ALICE) == LEAST_BYTES


def test_projects_of_others_are_none_of_ours(site: Site) -> None:
    """An administrator's around the state directory is no disk; what a restored store forgot is passed over."""
    home = site.home()
    descriptor = os.open(home.parent, os.O_RDONLY)
    site.kernel.mark(descriptor, 42, inherited=True)
    assert not site.disks().state(ALICE, 0).kept_by
    site.kernel.limits[FIRST_PROJECT] = (LEAST_BYTES, 1)
    site.disks().prepare(ALICE, LEAST_BYTES)
    assert site.kernel.project(descriptor) == FIRST_PROJECT + 1
    os.close(descriptor)


def test_a_purge_gives_the_number_up_and_takes_the_limit_away(site: Site) -> None:
    site.disks().prepare(ALICE, LEAST_BYTES)
    (site.home() / "file").write_text("hers")
    site.disks().remove(ALICE)
    assert (site.numbers.held, site.kernel.limits) == ({}, {FIRST_PROJECT: (0, 0)})
    site.disks().prepare(BOB, LEAST_BYTES)
    assert site.kernel.limits[FIRST_PROJECT + 1][0] == LEAST_BYTES


def test_why_users_could_leave_is_said_where_there_are_projects(site: Site) -> None:
    assert site.disks("project-quota", leave="they could").why_leavable() == "they could"
    assert site.disks("image", leave="they could").why_leavable() == ""
    site.disks().prepare(ALICE, LEAST_BYTES)
    assert site.disks("image", leave="they could").why_leavable() == "they could"


@pytest.mark.engine
def test_a_project_whose_quotas_are_off_moves_onto_an_image_that_is_asked_for(site: Site) -> None:
    """Its files are in the image then, and its number is given up."""
    site.disks().prepare(ALICE, LEAST_BYTES)
    (site.home() / "file").write_text("hers")
    site.kernel.reason = "quotas are off"
    found = site.disks("image", images="")
    try:
        found.prepare(ALICE, LEAST_BYTES)
        assert found.is_mounted(ALICE)
        assert (site.home() / "file").read_text() == "hers"
        assert site.numbers.held == {}
    finally:
        found.remove(ALICE)


# The walk


@pytest.fixture
def kernel() -> Iterator[FakeQuotas]:
    return FakeQuotas()


def project_of(kernel: FakeQuotas, place: Path) -> int:
    found = place.lstat()
    return kernel.projects.get((found.st_dev, found.st_ino), 0)


@pytest.mark.attack("I15", "links in a tree that becomes a project: none is followed")
def test_the_walk_follows_no_link(kernel: FakeQuotas, tmp_path: Path) -> None:
    """Neither to a file nor to a directory; the link itself is made anew, with what it leads to and whose it is."""
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (outside / "file").touch()
    (tree / "in").mkdir(parents=True)
    (tree / "in/file").touch()
    (tree / "in/link").symlink_to(outside / "file")
    (tree / "directory").symlink_to(outside)
    before = (tree / "in/link").lstat()
    mark_tree(kernel, tree, PROJECT)
    after = (tree / "in/link").lstat()
    assert {project_of(kernel, path) for path in (tree / "in", tree / "in/file")} == {PROJECT}
    assert {project_of(kernel, path) for path in (outside, outside / "file", tree)} == {0}
    assert (tree / "in/link").readlink() == outside / "file"
    assert (after.st_uid, after.st_gid, after.st_mtime_ns) == (before.st_uid, before.st_gid, before.st_mtime_ns)
    assert after.st_ino != before.st_ino
    assert sorted(path.name for path in tree.iterdir()) == ["directory", "in"]


def test_what_becomes_a_link_while_it_is_walked_is_not_followed(kernel: FakeQuotas, tmp_path: Path) -> None:
    """Between the look and the step a directory is exchanged for a link: the walk ends, and says where."""
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    (outside / "deep").mkdir(parents=True)
    (tree / "a").mkdir(parents=True)

    class Exchanged(FakeQuotas):
        def gives(self, descriptor: int, project: int) -> bool:
            (tree / "a").rename(tmp_path / "taken")
            (tree / "a").symlink_to(outside)
            return False

    exchanged = Exchanged()
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        mark_tree(exchanged, tree, PROJECT)
    assert {project_of(exchanged, outside), project_of(exchanged, outside / "deep")} == {0}


def test_a_tree_that_is_moved_under_the_walk_ends_it(kernel: FakeQuotas, tmp_path: Path) -> None:
    """What is above a directory that was moved out is none of the tree's."""
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    (tree / "a/b").mkdir(parents=True)
    elsewhere.mkdir()

    class Moved(FakeQuotas):
        def mark(self, descriptor: int, project: int, *, inherited: bool) -> None:
            super().mark(descriptor, project, inherited=inherited)
            if inherited and (tree / "a/b").exists():
                (tree / "a/b").rename(elsewhere / "b")

    moved = Moved()
    with pytest.raises(OSError, match="moved while"):
        mark_tree(moved, tree, PROJECT)
    assert project_of(moved, elsewhere) == 0


def test_a_deep_and_a_wide_tree_take_few_descriptors(
    kernel: FakeQuotas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deeper than a stack, and more directories in one than are remembered at once; a second walk has nothing to do."""
    tree = tmp_path / "tree"
    for number in range(30):
        (tree / "wide" / str(number)).mkdir(parents=True)
    here = os.open(tree, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    monkeypatch.setattr(project_tree, "_NAMES_AHEAD", 8)
    most = 0

    class Counting(FakeQuotas):
        marks = 0

        def gives(self, descriptor: int, project: int) -> bool:
            found = os.fstat(descriptor)
            return (found.st_dev, found.st_ino) in self.giving

        def mark(self, descriptor: int, project: int, *, inherited: bool) -> None:
            nonlocal most
            most = max(most, sum(1 for _ in Path("/proc/self/fd").iterdir()))
            self.marks += 1
            found = os.fstat(descriptor)
            if inherited:
                self.giving[found.st_dev, found.st_ino] = tree

    before, counting = sum(1 for _ in Path("/proc/self/fd").iterdir()), Counting()
    try:
        mark_tree(counting, tree, PROJECT)
        assert counting.marks == 2 * (30 + 1 + 2000)
        assert most - before < 8
        mark_tree(counting, tree, PROJECT)
        assert counting.marks == 2 * (30 + 1 + 2000)
    finally:
        remove_tree(tree)  # too deep for others
