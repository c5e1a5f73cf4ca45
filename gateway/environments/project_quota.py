"""Project quotas of ext4 and XFS in the kernel's words: whose project a file is of, and a project's limits and use.

Both file systems answer the same calls (quotactl_fd(2), FS_IOC_FSSETXATTR of ioctl_xfs_fsgetxattr(2)), so no program
is needed and no device. A directory that is marked gives its project to whatever is made in it, and the kernel moves
and links nothing into it that is of another one (EXDEV).
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_QUOTACTL_FD = 443  # the same number on every architecture, from Linux 5.14 on
_PROJECT_QUOTA = 2  # PRJQUOTA of quota.h
_GET_QUOTA, _SET_QUOTA, _GET_STATE = 0x800007, 0x800008, 0x5808  # Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTATV
_LIMITS_ARE_VALID = 1 | 4  # QIF_BLIMITS | QIF_ILIMITS
_BLOCK_BYTES = 1024  # in which struct if_dqblk counts limits; use it counts in bytes
_RECORD = struct.Struct("=8QI4x")  # struct if_dqblk
_STATE = struct.Struct("=bxH252x")  # struct fs_quota_statv, and room behind it
_STATE_VERSION, _IS_COUNTED, _IS_ENFORCED = 1, 1 << 4, 1 << 5  # FS_QSTATV_VERSION1, FS_QUOTA_PDQ_ACCT, ..._ENFD
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
_ATTRIBUTES = struct.Struct("=5I8x")  # struct fsxattr: flags, extent size, extents, project, CoW extent size
_IS_INHERITED = 0x200  # FS_XFLAG_PROJINHERIT
_NO_ATTRIBUTES = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL})
_HAVE_QUOTAS = ("ext4", "xfs")


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """What the kernel keeps of a project: limits, 0 where there is none, and what is used."""

    limit_bytes: int = 0
    used_bytes: int = 0
    limit_inodes: int = 0
    used_inodes: int = 0

    @property
    def is_blank(self) -> bool:
        """Whether nothing carries it and nothing bounds it."""
        return self == ProjectRecord()


class KernelQuotas:
    """The quotas of this host's file systems. A descriptor is of any file on the file system that is meant."""

    def why_not(self, place: Path) -> str:
        """Say why the file system that a directory is on enforces no project quotas; empty where it does."""
        if os.geteuid() != 0:
            return "the gateway is not root"
        place = next(one for one in (place, *place.parents) if one.exists()).resolve()
        with opened(place) as descriptor:
            kind = _kind_of(descriptor)
            if kind not in _HAVE_QUOTAS:
                return f"{place} is on {kind}, which has no project quotas"
            flags = self._state(descriptor)
        if not flags & _IS_COUNTED:
            return f"{place} is on {kind} without project quotas (mount option prjquota)"
        return "" if flags & _IS_ENFORCED else f"project quotas of {place} are counted only (mount option prjquota)"

    def record(self, descriptor: int, project: int) -> ProjectRecord:
        """Return a project's limits and use; blank where the kernel has nothing of it. Raises: OSError."""
        buffer = bytearray(_RECORD.size)
        try:
            _quotactl(descriptor, _GET_QUOTA, project, buffer)
        except OSError as exc:
            if exc.errno in {errno.ENOENT, errno.ESRCH} and self._state(descriptor):  # XFS: no such project yet
                return ProjectRecord()
            raise
        hard, _soft, used, hard_inodes, _soft_inodes, used_inodes, *_times = _RECORD.unpack(buffer)
        return ProjectRecord(hard * _BLOCK_BYTES, used, hard_inodes, used_inodes)

    def limit(self, descriptor: int, project: int, size_bytes: int, inodes: int) -> None:
        """Bound a project, at once and for whoever writes; 0 and 0 take the bounds away. Raises: OSError."""
        record = _RECORD.pack(size_bytes // _BLOCK_BYTES, 0, 0, inodes, 0, 0, 0, 0, _LIMITS_ARE_VALID)
        _quotactl(descriptor, _SET_QUOTA, project, bytearray(record))

    def project(self, descriptor: int) -> int:
        """Return the project that a file or directory is of; 0 where it is of none. Raises: OSError."""
        try:
            return self._attributes(descriptor)[3]
        except OSError as exc:
            if exc.errno in _NO_ATTRIBUTES:
                return 0
            raise

    def gives(self, descriptor: int, project: int) -> bool:
        """Say whether a directory is of a project and gives it to what is made in it. Raises: OSError."""
        flags, _size, _extents, found, _cow_size = self._attributes(descriptor)
        return found == project and bool(flags & _IS_INHERITED)

    def mark(self, descriptor: int, project: int, *, inherited: bool) -> None:
        """Make a file or directory one of a project's; `inherited` by what is made in it. Raises: OSError."""
        flags, size, extents, found, cow_size = self._attributes(descriptor)
        wanted = flags | _IS_INHERITED if inherited else flags & ~_IS_INHERITED
        if (wanted, project) != (flags, found):
            fcntl.ioctl(descriptor, _SET_ATTRIBUTES, _ATTRIBUTES.pack(wanted, size, extents, project, cow_size))

    @staticmethod
    def _attributes(descriptor: int) -> tuple[int, ...]:
        return _ATTRIBUTES.unpack(fcntl.ioctl(descriptor, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size)))

    @staticmethod
    def _state(descriptor: int) -> int:
        """Return which quotas are on, as flags; none where the kernel says that there is no such thing."""
        buffer = bytearray(_STATE.pack(_STATE_VERSION, 0))
        try:
            _quotactl(descriptor, _GET_STATE, 0, buffer)
        except OSError:
            return 0
        return int(_STATE.unpack(buffer)[1])


@contextmanager
def opened(place: Path) -> Iterator[int]:
    """Open a directory; a link in its place is refused. Raises: OSError."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _quotactl(descriptor: int, command: int, project: int, buffer: bytearray) -> None:
    """Ask the kernel; the C library has no function for it. Raises: OSError."""
    import ctypes  # here, because every command imports this file and few ask

    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_uint(command << 8 | _PROJECT_QUOTA)  # QCMD of quota.h
    address = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    call = (ctypes.c_long(_QUOTACTL_FD), ctypes.c_uint(descriptor), number, ctypes.c_uint(project))
    if libc.syscall(*call, ctypes.byref(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _kind_of(descriptor: int) -> str:
    """Return the type of the file system that a descriptor is on (proc_pid_mountinfo(5))."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    mount = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        if fields[0] == mount:
            return fields[fields.index("-") + 1]
    return "an unknown file system"
