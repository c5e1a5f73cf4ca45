"""Asks before anything listens whether the asyncssh that is installed is one whose private parts this devgw knows.

The guards of this room override methods and read attributes that asyncssh promises to nobody. A version in which one of
them is renamed would drop a limit in silence, so another minor version is refused until it has been looked at.
"""

import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import asyncssh
from asyncssh import channel, connection

from gateway.errors import ConfigError
from gateway.ssh.transport.private_parts import OVERRIDDEN, READ

KNOWN = ("2.24",)
"""Minor versions with which all tests have passed; pyproject.toml caps at the last."""

BASES: dict[str, type[Any]] = {
    one.__name__: one
    for one in (
        connection.SSHConnection,
        connection.SSHServerConnection,
        connection.SSHClientConnection,
        channel.SSHChannel,
        channel.SSHServerChannel,
        channel.SSHClientChannel,
    )
}


def check_library(*, may_be_unknown: bool = False) -> None:
    """Refuse an asyncssh that is not known, unless it may be unknown; one that lacks a part is refused always.

    Raises: ConfigError `ssh.unknown-asyncssh`, `ssh.changed-asyncssh`.
    """
    version = asyncssh.__version__
    hint = f"pip install 'asyncssh=={KNOWN[-1]}.*'"
    if missing := next(missing_parts(), ""):
        raise ConfigError("ssh.changed-asyncssh", f"asyncssh {version} is not as devgw needs it: {missing}", hint)
    if ".".join(version.split(".")[:2]) not in KNOWN and not may_be_unknown:
        known = " or ".join(KNOWN)
        raise ConfigError(
            "ssh.unknown-asyncssh",
            f"asyncssh {version} is installed, and devgw's limits are tried with {known} alone",
            f"{hint}; server.unknown_asyncssh = true serves all the same",
        )


def missing_parts() -> Iterator[str]:
    """Yield what the installed asyncssh lacks of the parts that are used, each in words."""
    for place, methods in OVERRIDDEN.items():
        for name, parameters in methods.items():
            if (found := parameters_of(BASES[place], name)) != parameters:
                there = "is gone" if found is None else f"takes {', '.join(found)}"
                yield f"{place}.{name} {there}"
    for place, names in READ.items():
        known = names_in(BASES[place])
        yield from (f"{place}.{name} is gone" for name in names if name not in known)


def parameters_of(base: type[Any], name: str) -> tuple[str, ...] | None:
    """Return the names of a method's parameters; None where there is no such method."""
    method = getattr(base, name, None)
    return tuple(inspect.signature(method).parameters) if callable(method) else None


def names_in(base: type[Any]) -> frozenset[str]:
    """Return every name that the code of a class, and of what it inherits, reads or sets."""
    functions = (what for one in base.__mro__ for what in vars(one).values() if isinstance(what, FunctionType))
    return frozenset(name for function in functions for name in function.__code__.co_names)
