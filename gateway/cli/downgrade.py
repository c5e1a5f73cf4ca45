"""`devgw downgrade`: the database's tables one step back, for the version before."""

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, YesOption, command_app
from gateway.cli.output import Form, Output

app = command_app()


@app.command()
def downgrade(
    ctx: typer.Context, yes: YesOption = False, output: OutputOption = Form.TABLE, quiet: QuietOption = False
) -> None:
    """Bring the database's tables one step back, after a copy; then install the version before."""
    operations, out = invocation_of(ctx).app.administration.versions, Output(output, quiet=quiet)
    if not out.confirm("change the tables back? what only this version keeps in them is dropped", yes=yes):
        out.note("nothing was changed")
        return
    before, after = operations.downgrade()
    out.done(f"the tables went from {before} to {after}", {"from": before, "to": after})
    out.note("install the version before now: any command of this one brings the tables forward again")
