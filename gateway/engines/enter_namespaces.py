"""Runs a program in a sandbox's user and network namespace, with the right to change what is filtered there.

`python -I -S enter_namespaces.py USER NET PROGRAM ARGUMENT…`, the namespaces as descriptors. For a gateway that is no
root: whoever made a user namespace has every capability in it, but loses them with the next program that is executed,
unless they are ambient (capabilities(7)); `nsenter` does not make them so. Root needs none of this.
"""

import ctypes
import os
import sys
from typing import Final

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_KEPT: Final = (12, 13)  # CAP_NET_ADMIN, CAP_NET_RAW
_VERSION: Final = 0x20080522  # of capset(2)'s structures, for 64 capabilities
_libc = ctypes.CDLL(None, use_errno=True)


def main(user: str, net: str, *command: str) -> None:
    """Enter, keep two capabilities, and become the program. Raises: OSError."""
    _call("setns", int(user), _CLONE_NEWUSER)
    _call("setns", int(net), _CLONE_NEWNET)
    _make_inheritable()
    for capability in _KEPT:
        _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def _make_inheritable() -> None:
    """Add what is kept to the inheritable set, without which it cannot be ambient."""
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    _call("capget", header, sets)
    sets[2] |= sum(1 << capability for capability in _KEPT)  # after the effective and permitted ones
    _call("capset", header, sets)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
