"""`devgw logs`: what a detached job in an environment has written."""

from typing import Annotated

import typer

from gateway.cli.failures import own_failures
from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, command_app
from gateway.model import EnvironmentRef

app = command_app()


@app.command()
def logs(
    ctx: typer.Context,
    handle: Handle,
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Its id, or the beginning of it; default: the newest.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Print the output of a detached job."""
    ref = EnvironmentRef.parse(handle)
    arguments = [*(["--follow"] if follow else []), "--", *([] if job is None else [job])]
    with own_failures():
        code = invocation_of(ctx).app.administration.runs.logs(ref, arguments)
    raise typer.Exit(code)
