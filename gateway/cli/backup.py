"""`devgw backup`: keys, users, journal, policies and settings into a directory or a tar stream, while it serves."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output, is_terminal
from gateway.errors import UsageError

if TYPE_CHECKING:
    from gateway.operations.backup import Made

app = command_app()


@app.command()
def backup(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="DIR|-", help="A directory that is not there yet; - writes a tar to stdout.")
    ],
    volumes: Annotated[bool, typer.Option("--volumes", help="People's files too, by rsync; not into a tar.")] = False,
    previous: Annotated[
        Path | None,
        typer.Option("--link-dest", metavar="DIR", help="The backup before: volumes link what has not changed."),
    ] = None,
    recordings: Annotated[bool, typer.Option("--recordings", help="Recordings of terminals too.")] = False,
    no_database: Annotated[
        bool, typer.Option("--no-database", help="Leave the database out, for a site that backs its server up itself.")
    ] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Back up this gateway while it serves. It holds private keys: keep it as safe as the gateway."""
    from gateway.backup.making import Plan
    from gateway.backup.manifest import VOLUMES

    plan = Plan(recordings=recordings, volumes=volumes, database=not no_database)
    operations, out = invocation_of(ctx).app.administration.backups, Output(output, quiet=quiet)
    if target == "-":
        _refuse_for_a_stream(volumes=volumes, previous=previous, output=output)
        with out.progress() as show:
            made = operations.make_stream(sys.stdout.buffer, plan, show)
        out.note(f"backed up {_said_of(made)}")
        return
    if previous is not None:
        _require_linkable(previous, volumes=volumes)
    with out.progress() as show:
        made = operations.make_directory(Path(target), plan, previous, show)
    document = {"backup": target, "sha256": made.sha256, "bytes": made.size_bytes, "files": len(made.manifest.entries)}
    document |= {"records": made.manifest.records, "left_out": list(made.manifest.left_out)}
    out.done(f"backed up to {target}: {_said_of(made)}", document)
    if previous is not None and not (previous / VOLUMES).is_dir():
        out.note(f"{previous} has no volumes to link to: all of them were copied")
    out.note("it holds private keys and password hashes: keep it as safe as the gateway itself")


def _require_linkable(previous: Path, *, volumes: bool) -> None:
    from gateway.backup.manifest import MANIFEST

    if not volumes:
        hint = "'--volumes --link-dest DIR'"
        raise UsageError("backup.bad-previous", "--link-dest is for volumes, and none are backed up", hint)
    if not (previous / MANIFEST).is_file():
        hint = "'--link-dest DIR' names a directory that 'devgw backup' made"
        raise UsageError("backup.bad-previous", f"there is no backup in {previous}", hint)


def _refuse_for_a_stream(*, volumes: bool, previous: Path | None, output: Form) -> None:
    if volumes or previous is not None:
        raise UsageError("backup.bad-stream", "volumes do not go into a tar stream", "name a directory, or use rsync")
    if output is Form.JSON:
        raise UsageError("backup.bad-stream", "stdout is the tar itself", "leave -o json out")
    if is_terminal(sys.stdout):
        raise UsageError("backup.bad-stream", "a tar is not for a terminal", "devgw backup - | gpg -e > devgw.tar.gpg")


def _said_of(made: "Made") -> str:
    left = f", without {' and '.join(made.manifest.left_out)}" if made.manifest.left_out else ""
    size = f"{made.size_bytes / 2**20:.1f} MiB"
    return f"{len(made.manifest.entries)} files, {size}, {made.manifest.records} records{left}; manifest {made.sha256}"
