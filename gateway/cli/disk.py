"""`devgw disk`: how full the disk of an environment is, and a larger one. Needs no engine to show it."""

from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.model import EnvironmentRef

app = command_app()


@app.command()
def disk(
    ctx: typer.Context,
    handle: Handle,
    size: Annotated[
        str | None, typer.Option("--size", metavar="SIZE", help="Grow it to this, such as 50GiB; it never shrinks.")
    ] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Show the disk of an environment, or make it larger."""
    from gateway.cli.quantities import parse_disk

    ref = EnvironmentRef.parse(handle)
    size_bytes = None if size is None else parse_disk(size, "--size")
    invocation, out = invocation_of(ctx), Output(output, quiet=quiet)
    if size_bytes is not None:
        invocation.app.administration.environments.grow_disk(ref, size_bytes)
    state = invocation.app.disks.state(ref, invocation.app.table.require(ref).limits.disk_bytes)
    out.facts({"handle": str(ref), "disk": state.text}, {"handle": str(ref), **state.document})
