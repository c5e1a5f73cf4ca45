"""Resource limits that the daemon itself cannot exceed: one without CAP_SYS_RESOURCE may only lower what it has.

An engine inside a container or a restricted machine is such a one; asking it for more makes every start fail.
"""

import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

_CAP_SYS_RESOURCE = 24  # linux/capability.h
_ALL_USERS = ["0", "0", "4294967295"]
_UNLIMITED = -1
_PROC_NAMES = {"memlock": "Max locked memory", "stack": "Max stack size", "nofile": "Max open files"}


def ceilings_behind(base_url: str) -> dict[str, int]:
    """Return the daemon's hard limits by ulimit name, where it is a process of this host that cannot raise them."""
    pid = _listener(base_url)
    if pid <= 0:  # on another host, or in a process namespace that is not ours
        return {}
    try:
        status, users, limits = (Path(f"/proc/{pid}/{file}").read_text() for file in ("status", "uid_map", "limits"))
    except OSError:
        return {}
    return {} if _may_raise(status, users) else _hard_limits(limits)


def lowered(wanted: int, name: str, ceilings: Mapping[str, int]) -> int:
    """Return a wanted limit, or the ceiling where that is lower; -1 is unlimited in both."""
    ceiling = ceilings.get(name, _UNLIMITED)
    if ceiling == _UNLIMITED:
        return wanted
    return ceiling if wanted == _UNLIMITED else min(wanted, ceiling)


def _listener(base_url: str) -> int:
    """Return the process that listens at a Unix socket, 0 when that cannot be told."""
    if not base_url.startswith("unix://"):
        return 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        try:
            peer.connect(base_url.removeprefix("unix://"))
        except OSError:
            return 0
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def _may_raise(status: str, users: str) -> bool:
    """Say whether it has the capability where it counts: a user namespace's own does not (setrlimit(2))."""
    if users.split() != _ALL_USERS:
        return False
    match = re.search(r"^CapEff:\s+([0-9a-f]+)$", status, re.MULTILINE)
    return match is None or bool(int(match[1], 16) >> _CAP_SYS_RESOURCE & 1)


def _hard_limits(limits: str) -> dict[str, int]:
    found = {}
    for name, words in _PROC_NAMES.items():
        if match := re.search(rf"^{words}\s+\S+\s+(\d+)", limits, re.MULTILINE):  # "unlimited" has no digits
            found[name] = int(match[1])
    return found
