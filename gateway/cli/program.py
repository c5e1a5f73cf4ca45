"""Runs one command line: finds the command, runs it, turns whatever happens into lines and an exit code."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.failures import exit_code_of, report
from gateway.cli.invocation import Invocation
from gateway.cli.registry import LazyGroup
from gateway.errors import Exit

if TYPE_CHECKING:
    from gateway.app.composition import App
    from gateway.config import Settings

_COMPLETION_VARIABLE = "_DEVGW_COMPLETE"

root = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@root.callback()
def devgw(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """A secure remote dev-environment gateway: one SSH port in front of per-user GPU containers."""
    if version:
        from gateway.version import VERSION

        typer.echo(f"devgw {VERSION}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run(arguments: Sequence[str], make_app: "Callable[[Settings], App] | None" = None) -> int:
    """Run `devgw ARGUMENTS` in this process and return the exit code. `make_app` builds the gateway's parts."""
    try:
        returned = _command().main(
            list(arguments),
            prog_name="devgw",
            complete_var=_COMPLETION_VARIABLE,
            standalone_mode=False,
            obj=Invocation(make_app),
        )
        sys.stdout.flush()
        if returned == Exit.INTERRUPTED:  # typer has turned Ctrl-C into this number
            report(KeyboardInterrupt())
    except SystemExit as exc:  # how typer ends when a shell has asked it for completions
        return exc.code if isinstance(exc.code, int) else Exit.FAILURE
    except BrokenPipeError:
        return _leave_quietly()
    except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001 - the one place that must let nothing through
        report(exc)
        return exit_code_of(exc)
    return returned if isinstance(returned, int) else Exit.OK


def _command() -> LazyGroup:
    if _COMPLETION_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # typer re-exports it without saying so

        completion_init()
    group = typer.main.get_command(root)
    assert isinstance(group, LazyGroup)  # noqa: S101 - tells the type checker what `cls=` above made
    return group


def _leave_quietly() -> int:
    """Whoever read our output has gone; nothing may be written while Python shuts down."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    return Exit.FAILURE
