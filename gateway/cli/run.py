"""`devgw run`: the training runner in somebody's environment, with its output here and its exit code as ours."""

from typing import Annotated

import typer

from gateway.cli.failures import own_failures
from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, QuietOption, command_app
from gateway.cli.output import Output
from gateway.model import EnvironmentRef

app = command_app()


@app.command()
def run(
    ctx: typer.Context,
    handle: Handle,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="-- SCRIPT [ARGS]...", help="What devgw-run takes.", show_default=False),
    ],
    detach: Annotated[
        bool, typer.Option("--detach", help="Print a job's id and leave it running; 'devgw logs' shows its output.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Run devgw-run in an environment; its exit code is passed on, 125 is a failure of devgw's own."""
    ref = EnvironmentRef.parse(handle)
    words = ["--detach", *arguments] if detach else arguments
    with own_failures():
        code = invocation_of(ctx).app.administration.runs.run(ref, words, Output(quiet=quiet).note)
    raise typer.Exit(code)
