"""`devgw audit log`: the journal's records, as a table or as the lines themselves, now or as they are written."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import JournalOption, OutputOption, QuietOption
from gateway.cli.output import Form, Output
from gateway.errors import JournalError

if TYPE_CHECKING:
    from gateway.audit.read import Filter
    from gateway.audit.record import Record

_FOLLOW_SECONDS = 0.25
_WIDTHS = {
    "TIME": 19,
    "CODE": 20,
    "WHO": 10,
    "ENVIRONMENT": 11,
    "DECISION": 8,
    "ADDRESS": 13,
    "WHAT": 40,
    "REFERENCE": 10,
}


def log(  # noqa: PLR0913, PLR0917 - typer reads one parameter for each flag
    ctx: typer.Context,
    user: Annotated[
        str, typer.Option("--user", metavar="USER", help="Who acted, or whose environment or key it is.")
    ] = "",
    action: Annotated[
        str, typer.Option("--action", metavar="CODE", help="A code, its first word, or a pattern: forward, key.*")
    ] = "",
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="From then on, in UTC.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then, in UTC.")] = None,
    denied: Annotated[bool, typer.Option("--denied", help="Only refusals.")] = False,
    reference: Annotated[
        str, typer.Option("--reference", metavar="ID", help="The record a refused user was told of.")
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for new ones; with --since those first. Ctrl-C ends it.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Read every record, and believe no index of the journal.")
    ] = False,
    journal: JournalOption = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Show records of the journal."""
    from gateway.audit.read import Filter
    from gateway.cli.moments import moment_from

    since_at, until_at = moment_from("--since", since), moment_from("--until", until)
    wanted = Filter(user, action, since_at, until_at, denied, reference)
    settings = invocation_of(ctx).settings
    directory = journal or (settings.journal_dir if follow else settings.all_journals)
    records = _records(directory, wanted, follow=follow, whole=whole)
    seen = 0

    def rows() -> Iterator[tuple[list[str], str]]:
        nonlocal seen
        for record in records:
            seen += 1
            yield _cells(record), record.line()

    out = Output(output, quiet=quiet)
    out.stream(_WIDTHS, rows())
    if not seen:
        out.note("no such record")


def _records(directory: Path, wanted: "Filter", *, follow: bool, whole: bool) -> "Iterator[Record]":
    from gateway.audit import read

    try:
        if not follow:
            yield from read.stream(directory, wanted, whole=whole)
        else:
            yield from read.follow(directory, wanted, _wait, after=0 if wanted.since else None)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise JournalError(
            "journal.unreadable", f"the journal in {directory} cannot be read: {reason}", "'devgw audit verify'"
        ) from exc


def _wait() -> bool:
    time.sleep(_FOLLOW_SECONDS)
    return True


def _cells(record: "Record") -> list[str]:
    from gateway.audit.display import COLUMNS, row

    cells = row(record)
    return [cells[name] for name in COLUMNS]
