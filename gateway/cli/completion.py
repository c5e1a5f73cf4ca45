"""`devgw completion`: the script that teaches a shell to complete `devgw`."""

from enum import StrEnum
from typing import Annotated

import typer

from gateway.cli.options import command_app
from gateway.cli.output import Output
from gateway.errors import UsageError

app = command_app()

COMPLETION_VARIABLE = "_DEVGW_COMPLETE"


class Shell(StrEnum):
    """Shells that can be taught."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(
    shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.", show_default=False)],
) -> None:
    """Print a completion script: source it from your shell's start file."""
    from typer.completion import (  # type: ignore[attr-defined]  # typer re-exports it without saying so
        get_completion_script,
    )

    try:
        script = get_completion_script(prog_name="devgw", complete_var=COMPLETION_VARIABLE, shell=shell.value)
    except typer.Exit as exc:
        raise UsageError("completion.unknown-shell", f"no completion for {shell}", "bash, zsh or fish") from exc
    Output().text(f"{script}\n")
