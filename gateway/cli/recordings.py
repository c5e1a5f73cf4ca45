"""`devgw sessions play` and `search`: recordings of terminals, shown again and looked through. Need no engine."""

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, complete_users
from gateway.cli.output import Form, Output
from gateway.errors import Exit, JournalError, NotFoundError, UsageError
from gateway.model import parse_user_name

if TYPE_CHECKING:
    from gateway.audit.recordings import KeptRecording, Match

_MATCHES = ("RECORDING", "USER", "AT", "LINE")
_LONGEST_SHOWN = 200
_HINT = "'devgw audit log --action session.recorded' names those that were finished"


def play(
    ctx: typer.Context,
    which: Annotated[
        str,
        typer.Argument(
            metavar="FILE|ID|USER",
            help="A file (asciicast v2), a recording's id, or a user: their last, or the one of --at.",
            show_default=False,
        ),
    ],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="Begin there, in UTC; what was shown before comes at once."),
    ] = None,
    speed: Annotated[float, typer.Option("--speed", min=0.01, metavar="FACTOR", help="2 is twice as fast.")] = 1.0,
) -> None:
    """Show what a recorded terminal showed; it may drive yours, so use one that nothing hangs on."""
    from gateway.audit import recording
    from gateway.cli.moments import moment_from

    moment = moment_from("--at", at)
    path, began = _chosen(ctx, which, moment)
    skip = max(0.0, (moment - began).total_seconds()) if moment and began else 0.0
    recording.play(path, _show, time.sleep, speed=speed, skip_seconds=skip)


def search(
    ctx: typer.Context,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="What a terminal showed, in any case.", show_default=False)
    ],
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Only this user's.", autocompletion=complete_users)
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Shown from then on, in UTC.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Shown before then.")] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Find the lines that recorded terminals showed; exit code 1 when there is none."""
    from gateway.audit.recordings import search as search_recording
    from gateway.cli.moments import moment_from

    if not text.strip():
        raise UsageError(
            "search.empty", "there is nothing to search for", "for example 'devgw sessions search nvidia-smi'"
        )
    begin, end = moment_from("--since", since), moment_from("--until", until)
    out = Output(output, quiet=quiet)
    matches: list[Match] = []
    for one in _kept(ctx, user):
        if end is not None and one.began_at >= end:
            continue
        try:
            found = list(search_recording(one, text))
        except JournalError as exc:
            out.note(exc.message)
            continue
        matches += [match for match in found if (not begin or match.at >= begin) and (not end or match.at < end)]
    out.table(_MATCHES, [_row(match) for match in matches], {"matches": [_document(match) for match in matches]})
    if not matches:
        out.note("no recording shows it")
        raise typer.Exit(Exit.FAILURE)
    out.note("'devgw sessions play ID --at TIME' shows one from there")


def _chosen(ctx: typer.Context, which: str, at: datetime | None) -> "tuple[Path, datetime | None]":
    """Return the file, and when it began where its name says so. Raises: NotFoundError, UsageError, JournalError."""
    from gateway.audit.recordings import recording_at

    path = Path(which)
    kept = _kept(ctx, None)
    if "/" in which or path.suffix:  # neither an id nor a user has these; a key file may be called alice
        return path, next((one.began_at for one in kept if one.path.resolve() == path.resolve()), None)
    named = [one for one in kept if one.reference == which]
    if not named:
        user = parse_user_name(which)
        theirs = [one for one in kept if one.user == user]
        found = theirs[-1] if theirs and at is None else recording_at(theirs, at) if at is not None else None
        named = [found] if found else []
    if not named:
        when = f" from {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
        raise NotFoundError("recording.not-found", f"there is no recording of {which!r}{when}", _HINT)
    return named[0].path, named[0].began_at


def _kept(ctx: typer.Context, user: str | None) -> "list[KeptRecording]":
    from gateway.audit.recordings import kept_recordings

    name = None if user is None else parse_user_name(user)
    directory = invocation_of(ctx).settings.recordings_dir
    try:
        return kept_recordings(directory, name)
    except OSError as exc:
        raise JournalError("recording.unreadable", f"{directory} cannot be read: {exc.strerror}") from exc


def _row(match: "Match") -> tuple[str, ...]:
    line = match.line.strip()
    shown = line if len(line) <= _LONGEST_SHOWN else f"{line[:_LONGEST_SHOWN]}..."
    return match.recording.reference, match.recording.user, f"{match.at:%Y-%m-%dT%H:%M:%S}", shown


def _document(match: "Match") -> dict[str, str]:
    return {
        "recording": match.recording.reference,
        "user": match.recording.user,
        "file": str(match.recording.path),
        "at": match.at.isoformat(),
        "line": match.line,
    }


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
