"""`devgw delete`: an environment is gone; its user's files only with `--purge`."""

from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, OutputOption, QuietOption, YesOption, command_app
from gateway.cli.output import Form, Output
from gateway.errors import Exit
from gateway.model import EnvironmentRef

app = command_app()


@app.command()
def delete(
    ctx: typer.Context,
    handle: Handle,
    force: Annotated[bool, typer.Option("--force", help="Also when it is running; its sessions end.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Its user's files too, for good.")] = False,
    yes: YesOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Delete an environment; its files stay unless purged."""
    from gateway.environments.layout import Layout

    ref = EnvironmentRef.parse(handle)
    out = Output(output, quiet=quiet)
    invocation = invocation_of(ctx)
    invocation.app.table.require(ref)
    volumes = Layout.of(invocation.settings.state_dir, ref).volumes
    fate = f"its files under {volumes} are deleted for good" if purge else f"its files under {volumes} stay"
    if not out.confirm(f"delete {ref}? {fate}", yes=yes):
        out.note("nothing was deleted")
        raise typer.Exit(Exit.FAILURE)
    with out.progress() as progress:
        progress(f"deleting {ref}")
        invocation.app.administration.environments.delete(ref, force=force, purge=purge)
    document = {"deleted": str(ref), "purged": purge, "volumes": None if purge else str(volumes)}
    out.done(f"{ref} is deleted; " + ("its files too" if purge else f"its files stay under {volumes}"), document)
