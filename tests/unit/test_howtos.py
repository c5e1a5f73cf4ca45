"""Every `devgw …` line in the how-tos is a command line that devgw takes, with the flags it has."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from gateway.cli.program import root
from gateway.cli.registry import LazyGroup

_HOWTOS = sorted((Path(__file__).parents[2] / "docs" / "howto").glob("*.md"))
_BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(devgw [^`]+)`")


def _lines() -> Iterator[tuple[str, str]]:
    for page in _HOWTOS:
        text = page.read_text()
        blocks = [line.strip() for block in _BLOCK.findall(text) for line in block.splitlines()]
        commands = [line.removeprefix("$ ").removeprefix("sudo ") for line in blocks]
        inline = _INLINE.findall(_BLOCK.sub("", text))
        yield from ((page.stem, line) for line in [*commands, *inline] if line.startswith("devgw "))


@pytest.mark.parametrize(("page", "line"), list(dict.fromkeys(_lines())))
def test_command_in_a_howto_parses(page: str, line: str) -> None:
    """The command exists, takes these flags, and lacks no argument; `command --help` is what a name alone means."""
    words = shlex.split(line.split(" | ", maxsplit=1)[0].split(" > ", maxsplit=1)[0], comments=True)[1:]
    group = typer.main.get_command(root)
    assert isinstance(group, LazyGroup)
    command = group
    context = typer.Context(group, info_name="devgw")
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"{page}: no command {name!r} in {line!r}"
        command = command.commands[name]
        context = typer.Context(command, info_name=name, parent=context)
    if words or not any(parameter.required for parameter in command.params):
        command.parse_args(context, words)


def test_howtos_name_the_commands_of_an_audit() -> None:
    """The test above is about something."""
    named = " ".join(line for _page, line in _lines())
    for command in ("policy check", "policy diff", "policy explain", "audit verify --head", "audit exposure"):
        assert command in named
