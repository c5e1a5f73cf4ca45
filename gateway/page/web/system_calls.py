"""A filter on system calls (seccomp(2)): what a process that only reads and writes open sockets never needs.

It stands beside landlock, which says nothing of Unix sockets and of modes, and holds where the kernel has none.
"""

import ctypes
import errno
import platform
import struct

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF's words: ld [k], jeq k, jge k, ret k."""
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET = 0, 4
_X32_BIT = 0x40000000
_SAME_EVERYWHERE = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "openat2": 437, "pidfd_getfd": 438,
    "fchmodat2": 452,
}  # fmt: skip
_NUMBERS = {
    "x86_64": (0xC000003E, _SAME_EVERYWHERE | {
        "open": 2, "socket": 41, "connect": 42, "bind": 49, "execve": 59, "kill": 62, "truncate": 76, "rename": 82,
        "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88, "chmod": 90, "chown": 92,
        "lchown": 94, "ptrace": 101, "mknod": 133, "mount": 165, "keyctl": 250, "openat": 257, "mkdirat": 258,
        "mknodat": 259, "fchownat": 260, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
        "fchmodat": 268, "unshare": 272, "perf_event_open": 298, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "renameat2": 316, "bpf": 321, "execveat": 322, "userfaultfd": 323,
    }),
    "aarch64": (0xC00000B7, _SAME_EVERYWHERE | {
        "mknodat": 33, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "mount": 40,
        "truncate": 45, "fchmodat": 53, "fchownat": 54, "openat": 56, "unshare": 97, "ptrace": 117, "kill": 129,
        "socket": 198, "bind": 200, "connect": 203, "keyctl": 219, "execve": 221, "perf_event_open": 241,
        "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "renameat2": 276, "bpf": 280,
        "execveat": 281, "userfaultfd": 282,
    }),
}  # fmt: skip
"""AUDIT_ARCH_* and each call's number, from the kernel's tables."""


def refuse_calls(libc: ctypes.CDLL) -> None:
    """Have the kernel refuse them for good; nothing on a machine whose numbers are not known. Raises: OSError."""
    known = _NUMBERS.get(platform.machine())
    if known is None:
        return
    program = _program(known[0], sorted(known[1].values()))
    text = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text))
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the page's process could not be confined")


def _program(architecture: int, refused: list[int]) -> bytes:
    count = len(refused)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_EQUAL, 0, count + 3, architecture),  # another architecture's numbers mean other calls
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        (_AT_LEAST, count + 1, 0, _X32_BIT),
        *((_EQUAL, count - place, 0, number) for place, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
