"""What this tree overrides and reads of asyncssh, found by looking at it: `transport/private_parts` lists the same."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

from gateway.ssh.transport import channels
from gateway.ssh.transport.guarded_connection import GuardedServerConnection
from gateway.ssh.transport.library import BASES, names_in
from gateway.ssh.upstream.pool import UpstreamConnection

_ROOM = Path(__file__).parents[2] / "gateway" / "ssh"


def _classes() -> Iterator[type]:
    yield from (GuardedServerConnection, UpstreamConnection)
    for one in vars(channels).values():
        if inspect.isclass(one) and issubclass(one, channels.ChannelGuard):
            yield one


def overridden() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the methods by the asyncssh class that has them, with their parameters."""
    found: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in BASES}
    for ours in _classes():
        order = ours.__mro__
        for place, one in enumerate(order):
            if one.__module__.startswith("gateway."):
                for name in (name for name, what in vars(one).items() if inspect.isfunction(what) and name[:2] != "__"):
                    _note(found, order[place + 1 :], name)
    return found


def _note(found: dict[str, dict[str, tuple[str, ...]]], behind: tuple[type, ...], name: str) -> None:
    for base in behind:
        if base.__module__.startswith("asyncssh.") and name in vars(base):
            if base.__name__ in found:
                found[base.__name__][name] = tuple(inspect.signature(vars(base)[name]).parameters)
            return


def read() -> dict[str, set[str]]:
    """Return the private names that the room's code uses, by the class whose own code has them."""
    used = {
        node.attr
        for path in _ROOM.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
    return {name: used & names_in(BASES[name]) for name in ("SSHServerConnection", "SSHServerChannel")}
