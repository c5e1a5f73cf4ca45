"""`devgw restart`: stop, then start, with what changed in image or settings in between."""

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, NoWaitOption, OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.model import EnvironmentRef

app = command_app()


@app.command()
def restart(
    ctx: typer.Context,
    handle: Handle,
    no_wait: NoWaitOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Stop an environment and start it again."""
    from gateway.cli.observation import document_of

    ref = EnvironmentRef.parse(handle)
    out = Output(output, quiet=quiet)
    gateway = invocation_of(ctx).app
    with out.progress() as progress:
        gateway.table.require(ref)
        gateway.environments.require_open_node(gateway.table.require(ref))  # before it is stopped in vain
        progress(f"stopping {ref}")
        gateway.administration.environments.stop(ref)
        started = gateway.administration.environments.start(ref, progress, wait=not no_wait)
    out.done(f"{ref} is running again", {"environment": document_of(started)})
