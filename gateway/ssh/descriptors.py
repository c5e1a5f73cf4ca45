"""Open files and sockets: as many as the system lets this process have, and none of its users takes the last ones."""

import resource
from typing import Final

RESERVED: Final = 128
"""Kept for accepting connections, administrators' commands, the journal and the database."""
LAST: Final = 32
"""Of those, kept from new connections as well: an administrator's command must reach the store and the journal."""
_UNLIMITED = 1 << 20


def raise_limit() -> int:
    """Raise the soft limit to the hard one; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _UNLIMITED if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def may_keep(descriptor: int, held: int) -> bool:
    """Say whether a user who holds so many channels may keep a descriptor: the kernel gives the lowest that is free.

    While half of all are free everybody may; then whoever holds less than an eighth, until only the reserve is left.
    """
    limit = _limit()
    if descriptor < limit // 2:
        return True
    return descriptor < limit - min(RESERVED, limit // 8) and held < limit // 8


def may_serve(descriptor: int, held: int) -> bool:
    """Say whether a user may keep a connection, or the one into their environment: into the reserve, with little else.

    So whoever logs in while others fill the gateway gets their session; whoever fills it gets no more connections.
    """
    limit = _limit()
    if descriptor < limit // 2:
        return True
    return descriptor < limit - min(LAST, limit // 16) and held < limit // 8


def may_accept(descriptor: int, *, is_known: bool) -> bool:
    """Say whether a connection that was just accepted may stay: not with one of the last descriptors.

    Where nobody has proved a key yet, half of the reserve is left to the addresses of users.
    """
    limit = _limit()
    return descriptor < limit - (min(LAST, limit // 16) if is_known else min(RESERVED, limit // 8) // 2)


def _limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft
