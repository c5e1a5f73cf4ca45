"""`devgw start`: a stopped environment runs again."""

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, NoWaitOption, OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.model import EnvironmentRef

app = command_app()


@app.command()
def start(
    ctx: typer.Context,
    handle: Handle,
    no_wait: NoWaitOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Start a stopped environment, when its GPUs are free."""
    from gateway.cli.observation import document_of

    ref = EnvironmentRef.parse(handle)
    out = Output(output, quiet=quiet)
    with out.progress() as progress:
        started = invocation_of(ctx).app.administration.environments.start(ref, progress, wait=not no_wait)
    out.done(f"{ref} is running", {"environment": document_of(started)})
