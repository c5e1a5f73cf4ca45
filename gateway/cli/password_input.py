"""Where a notebook password comes from: made, or read from stdin; never from argv or the environment."""

import sys
from dataclasses import dataclass

from gateway.cli.output import is_terminal
from gateway.errors import UsageError

_READ_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class NewPassword:
    """A password and whether we made it, for only then is it shown."""

    text: str
    was_made: bool


def obtain_password(*, from_stdin: bool) -> NewPassword:
    """Make a password, or read one line from stdin without its end; on a terminal it is asked for, unseen, twice.

    Raises:
        UsageError: `password.unreadable`.
        AuthError: bcrypt cannot take it.
    """
    if not from_stdin:
        from gateway.auth.passwords import make_password

        return NewPassword(make_password(), was_made=True)
    return NewPassword(_ask() if is_terminal(sys.stdin) else _read_line(), was_made=False)


def _read_line() -> str:
    raw = sys.stdin.buffer.readline(_READ_LIMIT)
    try:
        return raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as exc:
        raise UsageError("password.unreadable", "the password on stdin is not UTF-8 text", "write it as text") from exc


def _ask() -> str:
    import getpass

    first = getpass.getpass("notebook password: ", stream=sys.stderr)
    if first != getpass.getpass("again: ", stream=sys.stderr):
        raise UsageError("password.unreadable", "the two passwords differ", "try again")
    return first
