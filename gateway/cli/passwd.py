"""`devgw passwd`: another notebook password, effective at the next login."""

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, OutputOption, PasswordStdinOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.model import EnvironmentRef

app = command_app()


@app.command()
def passwd(
    ctx: typer.Context,
    handle: Handle,
    password_stdin: PasswordStdinOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Give an environment's notebook another password."""
    from gateway.cli.password_input import obtain_password

    ref = EnvironmentRef.parse(handle)
    out = Output(output, quiet=quiet)
    gateway = invocation_of(ctx).app
    gateway.table.require(ref)
    password = obtain_password(from_stdin=password_stdin)
    gateway.administration.environments.set_password(ref, password.text)
    if password.was_made:
        out.facts({"password": password.text}, {"handle": str(ref), "notebook_password": password.text})
        out.note("it is shown this once, and holds from the next login on")
    else:
        out.done(f"{ref} has another password from the next login on", {"handle": str(ref)})
