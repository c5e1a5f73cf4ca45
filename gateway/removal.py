"""Removes trees that strangers wrote: without recursion, by descriptors, never through a link or into a mount.

However deep, wide or oddly named a tree is: few descriptors are open, and memory grows by a few words a level.
"""

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_NODE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMES_AHEAD = 4096  # of directories to enter, shared among the levels
_MOST_FAILURES = 1000
_SHOWN_NAME, _SHOWN_LEVELS = 120, 8
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS of ioctl_iflags(2)
_LOCKING_FLAGS = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL


def remove_tree(place: Path) -> None:
    """Remove a file, a link or a tree; one that is not there is removed. What cannot go, stays alone.

    Raises:
        OSError: the first thing that could not be removed; EBUSY for what another file system is mounted on.
    """
    try:
        parent = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _Removal(parent, place).run()
    finally:
        os.close(parent)


def own_directory(place: Path, uid: int, gid: int, *, mode: int) -> None:
    """Make a directory that is this user's; never what a link of that name points at. Raises: OSError."""
    place.mkdir(exist_ok=True, mode=mode)
    directory = os.open(place, _OPEN_DIRECTORY)
    try:
        if os.geteuid() == 0:
            os.fchown(directory, uid, gid)
        os.fchmod(directory, mode)
    finally:
        os.close(directory)


@dataclass(slots=True)
class _Level:
    """A directory that is being emptied: who it is, so that it is known again, and what is still to be done in it."""

    name: str
    identity: tuple[int, int]
    ahead: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)


class _Removal:
    """One walk through one tree. `_here` is the only directory of the tree that is open between two steps."""

    def __init__(self, parent: int, place: Path) -> None:
        self._place = place
        self._mount = mount_of(parent)
        self._levels = [_Level("", identity_of(parent))]
        self._here = os.dup(parent)
        self._failures: list[OSError] = []

    def run(self) -> None:
        try:
            self._clear(self._place.name)
            while len(self._levels) > 1:
                if ahead := self._levels[-1].ahead:
                    self._enter(ahead.pop())
                elif not self._look():
                    self._leave()
        finally:
            os.close(self._here)
        if self._failures:
            first = self._failures[0]
            more = f", and {len(self._failures) - 1} more" if len(self._failures) > 1 else ""
            raise OSError(first.errno, f"{first.strerror}{more}", first.filename)

    def _clear(self, name: str) -> None:
        """Remove what is no directory; begin with what is one."""
        try:
            found = os.stat(name, dir_fd=self._here, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            self._enter(name)
        else:
            self._unlink(name)

    def _look(self) -> bool:
        """Remove the files of this directory, and note directories to enter; False when nothing is left to do."""
        level = self._levels[-1]
        room = max(1, _NAMES_AHEAD // len(self._levels))
        progressed = False
        try:
            with os.scandir(self._here) as entries:
                for entry in entries:
                    if entry.name in level.failed:
                        continue
                    if not entry.is_dir(follow_symlinks=False):
                        progressed |= self._unlink(entry.name)
                    elif len(level.ahead) < room:
                        level.ahead.append(entry.name)
                    else:
                        break
        except OSError as exc:
            self._fail(exc, ".", level)
            return False
        return progressed or bool(level.ahead)

    def _enter(self, name: str) -> None:
        try:
            directory = self._open_directory(name)
        except FileNotFoundError:
            return
        except OSError as exc:
            if exc.errno in {errno.ENOTDIR, errno.ELOOP}:
                self._unlink(name)  # it became a file or a link in the meantime
            else:
                self._fail(exc, name, self._levels[-1])
            return
        if mount_of(directory) != self._mount:
            os.close(directory)
            self._fail(OSError(errno.EBUSY, "another file system is mounted there"), name, self._levels[-1])
            return
        os.close(self._here)
        self._here = directory
        self._levels.append(_Level(name, identity_of(directory)))

    def _open_directory(self, name: str) -> int:
        """Open a directory of this one, and make it one that can be emptied."""
        try:
            directory = os.open(name, _OPEN_DIRECTORY, dir_fd=self._here)
        except PermissionError:
            self._open_up(name)
            directory = os.open(name, _OPEN_DIRECTORY, dir_fd=self._here)
        if os.geteuid() != 0 and os.fstat(directory).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            try:
                os.fchmod(directory, stat.S_IRWXU)
            except OSError:
                os.close(directory)
                raise
        return directory

    def _open_up(self, name: str) -> None:
        """Give a directory that its owner shut back to its owner; only root needs no such thing."""
        node = os.open(name, _OPEN_NODE, dir_fd=self._here)
        try:
            if stat.S_ISDIR(os.fstat(node).st_mode):
                os.chmod(f"/proc/self/fd/{node}", stat.S_IRWXU)  # noqa: PTH101 a magic link, which Path would read as text
        finally:
            os.close(node)

    def _leave(self) -> None:
        """Go up to the directory this one was entered from, and remove this one.

        Raises:
            OSError: ESTALE, where it has been moved: what is above it now is none of ours.
        """
        level = self._levels.pop()
        above = os.open("..", _OPEN_DIRECTORY, dir_fd=self._here)
        os.close(self._here)
        self._here = above
        if identity_of(above) != self._levels[-1].identity:
            raise OSError(errno.ESTALE, "it was moved while it was being removed", self._shown(level.name))
        if level.failed:
            self._levels[-1].failed.add(level.name)
            return
        self._attempt(level.name, os.rmdir)

    def _unlink(self, name: str) -> bool:
        return self._attempt(name, os.unlink)

    def _attempt(self, name: str, remove: Callable[..., None]) -> bool:
        """Remove one entry; where a flag keeps it, without the flag."""
        try:
            try:
                remove(name, dir_fd=self._here)
            except PermissionError:
                self._unlock(name)
                remove(name, dir_fd=self._here)
        except FileNotFoundError:
            return True
        except OSError as exc:
            self._fail(exc, name, self._levels[-1])
            return False
        return True

    def _unlock(self, name: str) -> None:
        """Take the flags that forbid a removal from an entry and from the directory it is in; root alone may."""
        _clear_flags(self._here)
        node = os.open(name, _OPEN_NODE, dir_fd=self._here)
        try:
            kind = os.fstat(node).st_mode
            if stat.S_ISREG(kind) or stat.S_ISDIR(kind):  # to open anything else may wait, or act
                descriptor = os.open(f"/proc/self/fd/{node}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    _clear_flags(descriptor)
                finally:
                    os.close(descriptor)
        finally:
            os.close(node)

    def _fail(self, exc: OSError, name: str, level: _Level) -> None:
        """Remember that an entry stays. Raises: OSError, where so many stay that to go on is of no use."""
        level.failed.add(name)
        self._failures.append(OSError(exc.errno, exc.strerror, self._shown(name)))
        if len(self._failures) >= _MOST_FAILURES:
            raise self._failures[0]

    def _shown(self, name: str) -> str:
        """Name an entry for a message: a path of any depth and any bytes, cut and printable."""
        inner = [level.name for level in self._levels[2:]]
        parts = [*inner, name] if len(inner) < _SHOWN_LEVELS else ["…", name]
        if len(self._levels) == 1:
            return str(self._place)
        whole = "/".join(parts)
        text = "".join(char if char.isprintable() else "?" for char in whole)
        return f"{self._place}/{text[:_SHOWN_NAME]}"


def _clear_flags(descriptor: int) -> None:
    """Make a file or directory one that may be changed and removed; left alone where its file system has no flags."""
    flags = bytearray(8)
    try:
        fcntl.ioctl(descriptor, _GET_FLAGS, flags)
        now = int.from_bytes(flags[:4], sys.byteorder)
        if now & _LOCKING_FLAGS:
            flags[:4] = (now & ~_LOCKING_FLAGS).to_bytes(4, sys.byteorder)
            fcntl.ioctl(descriptor, _SET_FLAGS, bytes(flags))
    except OSError:
        return


def identity_of(descriptor: int) -> tuple[int, int]:
    """Return what a file is known by as long as it is open."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def mount_of(descriptor: int) -> str:
    """Return the mount a descriptor lies in; a bind mount is one of its own (proc_pid_fdinfo(5))."""
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    return next((line for line in text.splitlines() if line.startswith("mnt_id:")), "")
