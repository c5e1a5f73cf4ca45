"""`devgw list`: every environment, whose it is and what it does. Needs no engine."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app, complete_users
from gateway.cli.output import Form, Output
from gateway.model import Environment, EnvironmentState, parse_user_name

app = command_app()

_HEADINGS = ("HANDLE", "STATE", "GPUS", "MEMORY", "CPUS", "IMAGE", "AGE")


@app.command("list")
def list_environments(
    ctx: typer.Context,
    user: Annotated[
        str | None, typer.Argument(metavar="[USER]", help="Only this user's.", autocompletion=complete_users)
    ] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """List environments."""
    from gateway.cli.observation import document_of, observe

    name = None if user is None else parse_user_name(user)
    gateway = invocation_of(ctx).app
    seen = observe(gateway, gateway.table.all(name))
    out = Output(output, quiet=quiet)
    disks = [gateway.disks.state(environment.ref, environment.limits.disk_bytes) for environment in seen.environments]
    document = {
        "environments": [
            {**document_of(environment), **disk.document}
            for environment, disk in zip(seen.environments, disks, strict=True)
        ],
        "engine_answers": not seen.silence,
    }
    rows = [_row(environment) for environment in seen.environments]
    if any(disk.size_bytes for disk in disks):
        rows = [(*row, disk.short) for row, disk in zip(rows, disks, strict=True)]
        out.table((*_HEADINGS, "DISK"), rows, document)
    else:
        out.table(_HEADINGS, rows, document)
    for environment in seen.environments:
        if environment.state is EnvironmentState.UNKNOWN:
            out.note(f"{environment.ref}: {environment.detail}")
    for environment in seen.environments:
        if environment.trouble:
            out.note(f"{environment.ref}: {environment.trouble}")
    if seen.note:
        out.note(seen.note)
    if not seen.environments:
        out.note("there are no environments; 'devgw create USER --key FILE' makes one")


def _row(environment: Environment) -> tuple[str, ...]:
    from gateway.cli.quantities import age_text, size_text

    age = (datetime.now(UTC) - environment.created_at).total_seconds()
    return (
        str(environment.ref),
        environment.state.value,
        str(len(environment.gpus)),
        size_text(environment.limits.memory_bytes),
        f"{environment.limits.cpus:g}",
        environment.image,
        age_text(age),
    )
