"""The options that mean the same everywhere may stand before the command: `devgw -o json list`.

They are moved behind it, where the command itself takes or refuses them, so that both places mean the same.
"""

from collections.abc import Sequence
from typing import Any

from typer.core import TyperGroup

from gateway.errors import UsageError

_FLAGS = frozenset({"-q", "--quiet", "-y", "--yes"})
_WITH_VALUE = ("-o", "--output")


def move_behind_command(group: TyperGroup, context: Any, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the options that stand before the command right behind its name.

    Raises:
        UsageError: `command.missing`, where only such options stand there.
    """
    options, rest = _split(arguments)
    if not options:
        return rest
    if not rest:
        raise UsageError("command.missing", f"no command after {' '.join(options)}", "'devgw --help' lists them")
    if rest[0].startswith("-"):  # --help and --version need no command; anything else is no option of devgw's
        return rest
    place = _end_of_name(group, context, rest)
    if place == 0:
        return rest  # no command has that name, which is what shall be said
    return [*rest[:place], *options, *rest[place:]]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the leading options with their values, and what follows."""
    place = 0
    while place < len(arguments):
        word = arguments[place]
        if word in _WITH_VALUE:
            place += 2
        elif word in _FLAGS or word.startswith(("--output=", "-o")):
            place += 1
        else:
            break
    return list(arguments[:place]), list(arguments[place:])


def _end_of_name(group: TyperGroup, context: Any, words: Sequence[str]) -> int:
    """Return how many words name the command: `list` one, `key list` two."""
    command: Any = group
    for place, word in enumerate(words):
        if not isinstance(command, TyperGroup) or word.startswith("-"):
            return place
        command = command.get_command(context, word)
        if command is None:
            return place
    return len(words)
