"""Gives a tree that is there already to a project: every file and directory, and what will be made in it.

A stranger wrote the tree: it is walked without recursion and by descriptors, never through a link or into a mount.
A directory is marked once all in it is: one that is marked is whole. Nothing may write there meanwhile.
"""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from gateway.environments.project_quota import KernelQuotas, opened
from gateway.removal import identity_of, mount_of, remove_tree

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NAMES_AHEAD = 4096  # of directories to enter, shared among the levels
_STAGE = ".devgw-links"


def mark_tree(quotas: KernelQuotas, place: Path, project: int) -> None:
    """Give all that is below a directory to a project; the directory itself is the caller's to mark, as the last.

    Sockets and named pipes stay as they are, which the kernel lets nobody mark; so do links with several names.

    Raises:
        OSError: the first thing that could not be marked; what was marked stays so.
    """
    stage = place / _STAGE
    remove_tree(stage)
    try:
        with opened(place) as root:
            _Marking(quotas, root, place, project).run()
    finally:
        remove_tree(stage)


@dataclass(slots=True)
class _Level:
    """A directory whose entries are being marked: who it is, so that it is known again, and where to go on in it."""

    name: str
    identity: tuple[int, int]
    ahead: list[str] = field(default_factory=list)
    has_files_ahead: bool = True
    has_more_ahead: bool = True
    """Whether there may be directories to enter that `ahead` had no room for."""


class _Marking:
    """One walk through one tree. `_here` is the only directory of the tree that is open between two steps."""

    def __init__(self, quotas: KernelQuotas, root: int, place: Path, project: int) -> None:
        self._quotas = quotas
        self._root = root
        self._place = place
        self._project = project
        self._mount = mount_of(root)
        self._levels = [_Level("", identity_of(root))]
        self._here = os.dup(root)
        self._links = 0

    def run(self) -> None:
        try:
            while True:
                level = self._levels[-1]
                if level.ahead:
                    self._enter(level.ahead.pop())
                elif level.has_more_ahead:
                    self._look(level)
                elif len(self._levels) > 1:
                    self._leave()
                else:
                    return
        except OSError as exc:
            within = "/".join(level.name for level in self._levels[1:])[:200]
            where = "".join(char if char.isprintable() else "?" for char in within)
            raise OSError(exc.errno, exc.strerror, f"{self._place}/{where}") from exc
        finally:
            os.close(self._here)

    def _look(self, level: _Level) -> None:
        """Mark what is no directory, once, and note directories to be entered, as many as there is room for."""
        room, links = max(1, _NAMES_AHEAD // len(self._levels)), []
        level.has_more_ahead = False
        with os.scandir(self._here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not self._is_ahead(entry.name):
                        continue
                    if len(level.ahead) == room:
                        level.has_more_ahead = True
                    else:
                        level.ahead.append(entry.name)
                elif level.has_files_ahead and entry.is_symlink():
                    links.append(entry.name)
                elif level.has_files_ahead and entry.is_file(follow_symlinks=False):
                    self._mark_file(entry.name)
        level.has_files_ahead = False
        for name in links:  # not while the directory is read: each is replaced
            self._make_link_anew(name)

    def _is_ahead(self, name: str) -> bool:
        """Say whether a directory is still to be marked; another file system is not."""
        if len(self._levels) == 1 and name == _STAGE:
            return False
        directory = os.open(name, _OPEN_DIRECTORY, dir_fd=self._here)
        try:
            return mount_of(directory) == self._mount and not self._quotas.gives(directory, self._project)
        finally:
            os.close(directory)

    def _enter(self, name: str) -> None:
        directory = os.open(name, _OPEN_DIRECTORY, dir_fd=self._here)
        os.close(self._here)
        self._here = directory
        self._quotas.mark(directory, 0, inherited=False)  # one of another project takes in none of ours
        self._levels.append(_Level(name, identity_of(directory)))

    def _leave(self) -> None:
        """Mark this directory, whose entries are, and go up to where it was entered from.

        Raises:
            OSError: ESTALE, where it has been moved: what is above it now is none of ours.
        """
        self._quotas.mark(self._here, self._project, inherited=True)
        above = os.open("..", _OPEN_DIRECTORY, dir_fd=self._here)
        os.close(self._here)
        self._here = above
        self._levels.pop()
        if identity_of(above) != self._levels[-1].identity:
            raise OSError(errno.ESTALE, "it was moved while it was being marked")

    def _mark_file(self, name: str) -> None:
        descriptor = os.open(name, _OPEN_FILE, dir_fd=self._here)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._quotas.mark(descriptor, self._project, inherited=False)
        finally:
            os.close(descriptor)

    def _make_link_anew(self, name: str) -> None:
        """Replace a symbolic link by its like of the project: it cannot be marked, and unmarked not be renamed."""
        found = os.lstat(name, dir_fd=self._here)
        if found.st_nlink > 1:
            return
        leads_to = os.readlink(name, dir_fd=self._here)
        stage = self._stage()
        try:
            fresh = str(self._links)
            self._links += 1
            os.symlink(leads_to, fresh, dir_fd=stage)
            os.chown(fresh, found.st_uid, found.st_gid, dir_fd=stage, follow_symlinks=False)
            times = (found.st_atime_ns, found.st_mtime_ns)
            os.utime(fresh, ns=times, dir_fd=stage, follow_symlinks=False)
            os.rename(fresh, name, src_dir_fd=stage, dst_dir_fd=self._here)
        finally:
            os.close(stage)

    def _stage(self) -> int:
        """Open the directory in which links are made; it gives them the project, which those to be left cannot yet."""
        if not self._links:
            os.mkdir(_STAGE, 0o700, dir_fd=self._root)
        stage = os.open(_STAGE, _OPEN_DIRECTORY, dir_fd=self._root)
        self._quotas.mark(stage, self._project, inherited=True)
        return stage
