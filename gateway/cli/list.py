"""`devgw list`: every environment, whose it is and what it does. Needs no engine."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app, complete_users
from gateway.cli.output import Form, Output
from gateway.model import Environment, EnvironmentState, parse_user_name

if TYPE_CHECKING:
    from gateway.environments.disks import Disks

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
    from gateway.cli.disk import disk_document
    from gateway.cli.observation import document_of, observe

    name = None if user is None else parse_user_name(user)
    gateway = invocation_of(ctx).app
    seen = observe(gateway, gateway.table.all(name))
    out = Output(output, quiet=quiet)
    document = {
        "environments": [
            {**document_of(environment), **disk_document(gateway.disks, environment)}
            for environment in seen.environments
        ],
        "engine_answers": not seen.silence,
    }
    rows = [_row(environment) for environment in seen.environments]
    disks = [_disk(environment, gateway.disks) for environment in seen.environments]
    if any(disks):
        rows = [(*row, disk or "-") for row, disk in zip(rows, disks, strict=True)]
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


def _disk(environment: Environment, disks: "Disks") -> str:
    """Write size and use: `50GiB 81%`."""
    from gateway.cli.quantities import size_text

    found = disks.use(environment.ref)
    size_bytes = disks.size(environment.ref) or environment.limits.disk_bytes
    if not size_bytes:
        return ""
    return f"{size_text(size_bytes)} {found.percent}%" if found else size_text(size_bytes)


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
