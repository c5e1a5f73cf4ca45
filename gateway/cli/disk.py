"""`devgw disk`: how full the disk of an environment is, and a larger one. Needs no engine to show it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.model import Environment, EnvironmentRef

if TYPE_CHECKING:
    from gateway.environments.disks import Disks

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
    environment, disks = invocation.app.table.require(ref), invocation.app.disks
    document = {"handle": str(ref), **disk_document(disks, environment)}
    out.facts({"handle": str(ref), "disk": disk_text(disks, environment)}, document)


def disk_document(disks: "Disks", environment: Environment) -> dict[str, Any]:
    """Return the size of a disk and what of it is used; None where it is not known."""
    found = disks.use(environment.ref)
    return {
        "disk_bytes": environment.limits.disk_bytes or None,
        "disk_used_bytes": found.used_bytes if found else None,
        "disk_used_percent": found.percent if found else None,
        "disk_inodes": found.inodes if found else None,
        "disk_used_inodes": found.used_inodes if found else None,
        "disk_is_enforced": bool(disks.size(environment.ref)),
    }


def disk_facts(disks: "Disks", environment: Environment) -> dict[str, str]:
    """Return what `show` says of a disk that has a size."""
    has_one = environment.limits.disk_bytes or disks.size(environment.ref)
    return {"disk": disk_text(disks, environment)} if has_one else {}


def disk_text(disks: "Disks", environment: Environment) -> str:
    """Say it in a line."""
    from gateway.cli.quantities import size_text

    ref = environment.ref
    size_bytes = disks.size(ref) or environment.limits.disk_bytes
    if not size_bytes:
        return "no size of its own"
    if not disks.size(ref):
        return f"{size_text(size_bytes)}, not enforced: {disks.why_not() or 'from its next start on'}"
    if found := disks.use(ref):
        used = f"{size_text(found.used_bytes)} of {size_text(found.size_bytes)} used"
        return f"{size_text(size_bytes)}, {used}, {found.used_inodes} of {found.inodes} inodes"
    return f"{size_text(size_bytes)}, not mounted"
