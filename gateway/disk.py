"""Room on the disk that belongs to a file before it is written: what was set aside cannot be taken by anybody else.

Blocks behind a file's end (fallocate(2) with FALLOC_FL_KEEP_SIZE); where a file system has none, so be it.
"""

import errno
import os
from pathlib import Path

BALLAST_BYTES = 16 * 2**20
"""What is kept for administrators: a file in the state directory."""
_KEEP_SIZE = 1
_BLOCK_BYTES = 512  # of st_blocks, on every file system
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def set_aside(descriptor: int, end_bytes: int) -> bool:
    """Have a file own the disk up to an offset; its size stays. False where this file system has no such thing.

    Raises:
        OSError: ENOSPC, EDQUOT: there is no room; what the file owned before, it owns still.
    """
    import ctypes  # here, because every command imports this file and few set room aside

    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_int64
    if libc.fallocate(descriptor, _KEEP_SIZE, size(0), size(end_bytes)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number))


def owned_bytes(descriptor: int) -> int:
    """Return how much of the disk a file owns, written or set aside."""
    return os.fstat(descriptor).st_blocks * _BLOCK_BYTES


def give_back(descriptor: int, size_bytes: int) -> None:
    """Free what lies behind a file's end."""
    os.ftruncate(descriptor, size_bytes)


def is_full(exc: BaseException) -> bool:
    """Say whether an error means that the disk, or the quota on it, is full."""
    return isinstance(exc, OSError) and exc.errno in {errno.ENOSPC, errno.EDQUOT}


class Ballast:
    """A file that holds room for administrators: given up when they act on a full disk, made again afterwards."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def give_up(self) -> bool:
        """Free the room where the disk has less than that. False where there was no need, or nothing to free."""
        try:
            if self._free_bytes() >= self._size_bytes or not self._path.stat().st_blocks:
                return False
            self._path.unlink()
        except OSError:
            return False
        return True

    def make(self) -> bool:
        """Set the room aside where it is not; only while as much again stays free. Says whether it is there now."""
        if not self._path.parent.is_dir():
            return False
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return False
        try:
            if owned_bytes(descriptor) >= self._size_bytes:
                return True
            return self._free_bytes() >= 2 * self._size_bytes and set_aside(descriptor, self._size_bytes)
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def _free_bytes(self) -> int:
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize
