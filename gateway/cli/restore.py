"""`devgw restore`: a backup put in place, once all of it is read and its journal proven."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.next_steps import next_line
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output

if TYPE_CHECKING:
    from gateway.backup.making import Show
    from gateway.backup.restoring import Restored
    from gateway.operations.backup import BackupOperations, RestoreOrder

app = command_app()


@app.command()
def restore(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="DIR|FILE|-", help="A backup's directory, its tar, or - for stdin.")],
    head: Annotated[
        Path | None,
        typer.Option("--head", metavar="FILE", help="Signed heads kept elsewhere, also later ones."),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Verifier key of the heads, or its file; kept elsewhere.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Move aside what is there already; nothing is lost.")] = False,
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Restore although the journal in it is not whole, or not proven.")
    ] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Restore a gateway onto this machine, which has none: keys, users, journal, policies and settings."""
    from gateway.operations.backup import RestoreOrder

    app, out = invocation_of(ctx).app, Output(output, quiet=quiet)
    operations = app.administration.backups
    order = RestoreOrder(head, key, force, unproven)
    with out.progress() as show:
        restored = _restore(operations, source, order, show)
    differences = [f"{one.user}: {one.subject} {one.message}" for one in operations.contradictions()]
    manifest, report = restored.manifest, restored.report
    document = {
        "made_at": manifest.made_at,
        "host": manifest.host,
        "devgw": manifest.devgw,
        "records": report.last_seq,
        "proven_seq": report.proven_seq,
        "lost_records": restored.lost_records,
        "placed": [str(path) for path in restored.placed],
        "moved_aside": str(restored.moved_aside or ""),
        "contradictions": differences,
    }
    out.done(f"restored the gateway that {manifest.host} had at {manifest.made_at}", document)
    _show_notes(out, restored, differences)
    out.note(next_line(app, ["'devgw doctor'", "'devgw serve'"]))


def _restore(operations: "BackupOperations", source: str, order: "RestoreOrder", show: "Show") -> "Restored":
    if source == "-":
        return operations.restore(sys.stdin.buffer, order, show)
    if Path(source).is_file():
        with Path(source).open("rb") as stream:
            return operations.restore(stream, order, show)
    return operations.restore(Path(source), order, show)


def _show_notes(out: Output, restored: "Restored", differences: list[str]) -> None:
    report = restored.report
    proven = f"proven up to {report.proven_seq}" if report.proven_seq else "not proven by any head"
    out.note(f"the journal has {report.last_seq} records, {proven}; what came after the backup is lost")
    if restored.lost_records:
        last = report.last_seq + restored.lost_records
        out.note(f"the heads kept elsewhere go up to record {last}: {restored.lost_records} records are lost for good")
    if restored.moved_aside:
        out.note(f"what was there before is in {restored.moved_aside}")
    for one in differences:
        out.note(f"database and journal differ, as of the moment of the backup: {one}")
    if restored.manifest.left_out:
        out.note(f"not in the backup: {', '.join(restored.manifest.left_out)}")
