"""`devgw rename`: a user or an environment under another name."""

from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app, complete_handles
from gateway.cli.output import Form, Output
from gateway.model import EnvironmentRef, parse_user_name

app = command_app()


@app.command()
def rename(
    ctx: typer.Context,
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD", help="A user, or alice+proj.", autocompletion=complete_handles, show_default=False
        ),
    ],
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="Of the same form: a name, or alice+paper.", show_default=False)
    ],
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Give a user, or one environment, another name; what is renamed must be stopped."""
    gateway, out = invocation_of(ctx).app, Output(output, quiet=quiet)
    if "+" in old or "+" in new:
        was, now = EnvironmentRef.parse(old), EnvironmentRef.parse(new)
        gateway.administration.names.rename_environment(was, now)
        out.done(f"{was} is {now} now", {"from": str(was), "to": str(now), "environments": [str(now)]})
        return
    user, name = parse_user_name(old), parse_user_name(new)
    environments = gateway.administration.names.rename_user(user, name)
    document = {"from": user, "to": name, "environments": [str(one) for one in environments]}
    out.done(f"{user} is {name} now", document)
    out.note(f"files that name /home/{user} must name /home/{name}: virtual environments are made anew")
    if user in gateway.policy.policy.holders.users():
        out.note(f"the policy grants {user} something, and {name} not yet: change it there")
