"""`devgw stop`: an environment ends, its files stay and its GPUs are free."""

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.model import EnvironmentRef

app = command_app()


@app.command()
def stop(ctx: typer.Context, handle: Handle, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """Stop an environment; its files stay, its GPUs are free."""
    from gateway.cli.observation import document_of

    ref = EnvironmentRef.parse(handle)
    out = Output(output, quiet=quiet)
    gateway = invocation_of(ctx).app
    with out.progress() as progress:
        gateway.table.require(ref)
        progress(f"stopping {ref}")
        gateway.administration.environments.stop(ref)
    out.done(f"{ref} is stopped", {"environment": document_of(gateway.table.require(ref))})
