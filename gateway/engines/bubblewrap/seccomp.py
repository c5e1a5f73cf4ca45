"""The seccomp filter of every sandbox, as a program for the kernel (seccomp(2), struct sock_filter). Pure.

It refuses what Docker's default profile refuses a process without capabilities and ordinary programs never ask for:
mounts, namespaces, modules, keyrings, clocks, tracing of the kernel, terminals' input queues, hypervisor sockets.
"""

import platform
import struct
from collections.abc import Iterator

from gateway.errors import EngineError

_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in struct seccomp_data
_X32 = 0x40000000  # the x32 numbers of x86_64, which would slip past the list
_CLONE_NEW = 0x7E020000  # every CLONE_NEW* flag but CLONE_NEWTIME, which clone(2) cannot take
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AF_VSOCK = 40
_CLONE3 = 435

# Numbers since 424 are the same everywhere: io_uring, the new mount calls, mount_setattr, quotactl_fd, open_tree_attr.
_REFUSED_EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 442, 443, 467)
_REFUSED = {
    "x86_64": (  # arch/x86/entry/syscalls/syscall_64.tbl
        103,
        134,
        136,
        139,
        153,
        155,
        156,
        161,
        163,
        164,
        165,
        166,
        167,
        168,
        169,
        170,
        171,
        172,
        173,
        174,
        175,
        176,
        177,
        178,
        179,
        180,
        212,
        227,
        246,
        248,
        249,
        250,
        272,
        298,
        303,
        304,
        305,
        308,
        313,
        320,
        321,
        323,
    ),
    "aarch64": (  # include/uapi/asm-generic/unistd.h
        18,
        39,
        40,
        41,
        42,
        51,
        58,
        60,
        89,
        97,
        104,
        105,
        106,
        112,
        116,
        142,
        161,
        162,
        170,
        217,
        218,
        219,
        224,
        225,
        241,
        264,
        265,
        266,
        268,
        273,
        280,
        282,
        294,
    ),
}
_MACHINES = {  # AUDIT_ARCH_*, clone, ioctl, socket
    "x86_64": (0xC000003E, 56, 16, 41),
    "aarch64": (0xC00000B7, 220, 29, 198),
}


def filter_program(machine: str | None = None) -> bytes:
    """Return the program for this machine. Raises: EngineError `engine.unconfined` on one without a list."""
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise EngineError(
            "engine.unconfined", f"there is no system call filter for {machine}, so it gets no environments", ""
        )
    return b"".join(_instructions(machine))


def _instructions(machine: str) -> Iterator[bytes]:
    architecture, clone, ioctl, socket = _MACHINES[machine]
    yield _load(_ARCHITECTURE)
    yield _op(_JUMP_EQUAL, architecture, 1, 0)
    yield _refuse(_ENOSYS)  # a 32-bit program: its numbers mean other calls
    yield _load(_NUMBER)
    if machine == "x86_64":
        yield _op(_JUMP_ABOVE, _X32, 0, 1)
        yield _refuse(_ENOSYS)
    for number in (*_REFUSED[machine], *_REFUSED_EVERYWHERE):
        yield from _refuse_if(number, _EPERM)
    yield from _refuse_if(_CLONE3, _ENOSYS)  # its flags lie in memory, which a filter cannot read; libc uses clone then
    yield from _look_at(clone, _FIRST_ARGUMENT, [_op(_JUMP_SET, _CLONE_NEW, 0, 1), _refuse(_EPERM)])
    tests = [*_refuse_if(_TIOCSTI, _EPERM), *_refuse_if(_TIOCLINUX, _EPERM)]
    yield from _look_at(ioctl, _SECOND_ARGUMENT, tests)
    yield from _look_at(socket, _FIRST_ARGUMENT, [*_refuse_if(_AF_VSOCK, _EAFNOSUPPORT)])
    yield _op(_RETURN, _ALLOW)


def _look_at(number: int, argument: int, tests: list[bytes]) -> Iterator[bytes]:
    """Apply tests to an argument of one call; the call is allowed when none refuses it."""
    yield _op(_JUMP_EQUAL, number, 0, len(tests) + 2)
    yield _load(argument)
    yield from tests
    yield _op(_RETURN, _ALLOW)


def _refuse_if(value: int, errno: int) -> Iterator[bytes]:
    yield _op(_JUMP_EQUAL, value, 0, 1)
    yield _refuse(errno)


def _load(offset: int) -> bytes:
    return _op(_LOAD, offset)


def _refuse(errno: int) -> bytes:
    return _op(_RETURN, _ERRNO | errno)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
