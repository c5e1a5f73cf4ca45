"""Trees that strangers wrote go away whole, whatever they are made of, and nothing beside them does."""

import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import removal
from gateway.environments.layout import Layout
from gateway.errors import StoreError
from gateway.model import EnvironmentRef
from gateway.removal import own_directory, remove_tree

_IS_ROOT = os.geteuid() == 0


def dig(place: Path, depth: int, name: str = "d") -> None:
    """Make a chain of directories, each in the last one, with a file at its end; longer than any path may be."""
    place.mkdir(exist_ok=True)
    here = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("secret", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A place for a tree; whatever a failed test leaves there goes away with rm(1)."""
    yield tmp_path / "tree"
    subprocess.run(["chattr", "-R", "-ia", str(tmp_path)], check=False, capture_output=True, timeout=60)
    subprocess.run(["rm", "-rf", str(tmp_path / "tree")], check=True, timeout=60)


@pytest.mark.attack("I15", "a tree of 50,000 levels: purged, by an iterative walk with few descriptors")
def test_a_tree_of_fifty_thousand_levels_is_removed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deeper than any stack, and never more than a handful of descriptors at once."""
    dig(tree, 50_000)
    most = 0
    enter = removal._Removal._enter

    def watched(self: removal._Removal, name: str) -> None:
        nonlocal most
        most = max(most, _open_descriptors())
        enter(self, name)

    before = _open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(removal._Removal, "_enter", watched)
        remove_tree(tree)
    assert not tree.exists()
    assert most - before <= 6
    assert _open_descriptors() == before


def test_a_wide_tree_is_removed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More directories beside each other than are noted at a time, below several levels."""
    monkeypatch.setattr(removal, "_NAMES_AHEAD", 64)
    for one in range(3):
        for two in range(500):
            (tree / str(one) / str(two)).mkdir(parents=True)
        (tree / str(one) / "7" / "file").touch()
    remove_tree(tree)
    assert not tree.exists()


@pytest.mark.attack(
    "I16", "links, hard links, sockets, FIFOs, names that are no UTF-8: purged, and nothing beside them"
)
def test_links_are_removed_and_what_they_point_at_stays(tree: Path, tmp_path: Path) -> None:
    """Symbolic links to files, directories, nothing and themselves; a hard link; a socket; a FIFO; odd names."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    tree.mkdir()
    (tree / "to-directory").symlink_to(outside)
    (tree / "to-file").symlink_to(outside / "kept")
    (tree / "to-nothing").symlink_to("nowhere")
    (tree / "loop").symlink_to("loop")
    (tree / "up").symlink_to("..")
    os.link(outside / "kept", tree / "hard")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "socket"))
    for name in (b"\xff\xfe", b"-rf", b"a\nb", b" ", "\u202e".encode(), b"x" * 255):
        odd = tree / os.fsdecode(name)
        odd.mkdir()
        (odd / os.fsdecode(b"\xfffile")).touch()
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").read_text() == "kept"
    assert (outside / "kept").stat().st_nlink == 1


@pytest.mark.parametrize("kind", ["link", "file", "nothing", "no parent"])
def test_a_place_that_is_no_directory(tree: Path, tmp_path: Path, kind: str) -> None:
    """A link goes and its target stays; a file goes; what is not there is removed."""
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "kept").touch()
    if kind == "link":
        tree.symlink_to(tmp_path / "target")
    elif kind == "file":
        tree.touch()
    remove_tree(tree / "below" if kind == "no parent" else tree)
    assert not tree.is_symlink()
    assert not tree.exists()
    assert (tmp_path / "target" / "kept").exists()


def test_shut_directories_are_opened(tree: Path) -> None:
    """Mode 0 keeps no owner's file."""
    (tree / "shut" / "below").mkdir(parents=True)
    (tree / "shut" / "below" / "file").touch()
    for place in (tree / "shut" / "below", tree / "shut", tree):
        place.chmod(0)
    remove_tree(tree)
    assert not tree.exists()


def test_immutable_and_append_only_entries_are_removed(tree: Path) -> None:
    """Where the test may set flags (root, on a file system that has them) the flags keep nothing."""
    (tree / "directory" / "below").mkdir(parents=True)
    (tree / "directory" / "below" / "file").touch()
    (tree / "appended").touch()
    places = [
        tree / "directory" / "below" / "file",
        tree / "directory" / "below",
        tree / "directory",
        tree / "appended",
    ]
    are_set = all(_set_flag(place, 0x20 if place.name == "appended" else 0x10) for place in places)
    assert are_set or not _IS_ROOT or _has_no_flags(tree)
    remove_tree(tree)
    assert not tree.exists()


def _set_flag(place: Path, flag: int) -> bool:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, 0x40086602, flag.to_bytes(8, "little"))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _has_no_flags(place: Path) -> bool:
    return subprocess.run(["lsattr", "-d", str(place)], check=False, capture_output=True, timeout=60).returncode != 0


_MOUNTS = """
import os, subprocess, sys
from pathlib import Path
from gateway.removal import remove_tree
tree, outside = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "--bind", str(outside), str(tree / "a" / "mounted")], check=True)
try:
    remove_tree(tree)
except OSError as exc:
    print(exc.errno, exc.strerror, exc.filename)
subprocess.run(["umount", str(tree / "a" / "mounted")], check=True)
"""


@pytest.mark.attack("I17", "a bind mount inside a tree that is purged: not entered, named, and all beside it is gone")
def test_a_mount_is_not_crossed(tree: Path, tmp_path: Path) -> None:
    """Even a bind mount of the same file system: what is there stays, and the failure names the place."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (tree / "a" / "mounted").mkdir(parents=True)
    (tree / "b").mkdir()
    command = ["unshare", *([] if _IS_ROOT else ["--map-root-user"]), "--mount"]
    done = subprocess.run(
        [*command, sys.executable, "-c", _MOUNTS, str(tree), str(outside)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("16 another file system is mounted there")
    assert str(tree / "a" / "mounted") in done.stdout
    assert (outside / "kept").read_text() == "kept"
    assert sorted(place.name for place in tree.iterdir()) == ["a"]
    remove_tree(tree)
    assert not tree.exists()


def test_a_directory_that_is_moved_away_ends_the_removal(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody moves the directory we are in: what is above its new place is none of ours, and is left alone."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "kept").mkdir(parents=True)
    (tree / "a" / "b").mkdir(parents=True)
    enter = removal._Removal._enter

    def moving(self: removal._Removal, name: str) -> None:
        enter(self, name)
        if name == "b":
            (tree / "a" / "b").rename(elsewhere / "b")

    monkeypatch.setattr(removal._Removal, "_enter", moving)
    with pytest.raises(OSError, match="it was moved"):
        remove_tree(tree)
    assert (elsewhere / "kept").is_dir()


@pytest.mark.parametrize("becomes", ["link", "file"])
def test_a_directory_that_becomes_something_else_is_removed_as_that(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    """Between the look at it and the way into it: what a link points at is left alone."""
    (tmp_path / "outside" / "kept").mkdir(parents=True)
    (tree / "a").mkdir(parents=True)
    enter = removal._Removal._enter

    def changing(self: removal._Removal, name: str) -> None:
        if name == "a":
            (tree / "a").rmdir()
            (tree / "a").symlink_to(tmp_path / "outside") if becomes == "link" else (tree / "a").touch()
        enter(self, name)

    monkeypatch.setattr(removal._Removal, "_enter", changing)
    remove_tree(tree)
    assert not tree.exists()
    assert (tmp_path / "outside" / "kept").is_dir()


def test_what_cannot_be_removed_costs_nothing_else(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry that stays is named; all others go; the walk ends."""
    for name in ("a", "b", "c"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").touch()
    unlink, stuck = os.unlink, (tree / "b" / "file").stat().st_ino

    def failing(name: str, *, dir_fd: int) -> None:
        if os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_ino == stuck:
            raise OSError(5, "Input/output error")
        unlink(name, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr("gateway.removal.os.unlink", failing)
        with pytest.raises(OSError, match="Input/output") as caught:
            remove_tree(tree)
    assert caught.value.filename == f"{tree}/b/file"
    assert [place.name for place in tree.iterdir()] == ["b"]


def test_a_purge_says_what_it_could_not_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the house's words, never silence: the files would come back to the next user of the name."""
    layout = Layout.of(tmp_path, EnvironmentRef.parse("alice"))
    layout.make(os.getuid(), os.getgid())

    def failing(_place: Path) -> None:
        raise OSError(16, "another file system is mounted there", "/volumes/alice/main/home")

    monkeypatch.setattr("gateway.environments.layout.remove_tree", failing)
    with pytest.raises(StoreError) as caught:
        layout.remove_volumes()
    assert "/volumes/alice/main/home" in caught.value.message
    assert "findmnt" in caught.value.hint


def test_owning_a_directory_follows_no_link(tmp_path: Path) -> None:
    """Owner and mode are those of the directory that was opened, never of what a link names."""
    (tmp_path / "outside").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match=r"link|Not a directory"):
        own_directory(tmp_path / "link", os.getuid(), os.getgid(), mode=0o700)
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o755
    own_directory(tmp_path / "made", os.getuid(), os.getgid(), mode=0o700)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
