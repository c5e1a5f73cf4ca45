"""`devgw sessions`: who is or was connected, how to end it, and recordings of terminals. Needs no engine."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import recordings
from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, YesOption, command_app, complete_users
from gateway.cli.output import Form, Output
from gateway.cli.reason import require_line
from gateway.errors import Exit, JournalError, NotFoundError, TimedOutError, UsageError
from gateway.model import UserName, parse_user_name

if TYPE_CHECKING:
    from gateway.store.sessions import LiveSession, LiveSessionTable, OwnedSession

app = command_app(help="List, end, play and search sessions.")

_HEADINGS = ("ID", "USER", "KEY", "ADDRESS", "ENVIRONMENT", "CHANNELS", "SENT", "RECEIVED", "SINCE")
_PAST_HEADINGS = ("ID", "USER", "ADDRESS", "ENVIRONMENT", "SENT", "RECEIVED", "SINCE", "UNTIL", "ENDED")
_PAST_SPAN = timedelta(days=7)
_END_SECONDS = 5.0
_POLL_SECONDS = 0.05


@app.callback()
def sessions() -> None:
    """List, end, play and search sessions."""


@app.command("list")
def list_sessions(
    ctx: typer.Context,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Only this user's.", autocompletion=complete_users)
    ] = None,
    past: Annotated[
        bool, typer.Option("--past", help="Those that have ended, from the journal, with the reason.")
    ] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="With --past: there since then; default: 7d.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="With --past: ended before then; default: now.")
    ] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """List who is connected, with which key, from where, doing what; with --past who was, and why it ended."""
    name = None if user is None else parse_user_name(user)
    if past:
        _list_past(invocation_of(ctx).settings.all_journals, name, since, until, Output(output, quiet=quiet))
        return
    if since is not None or until is not None:
        raise UsageError("session.not-past", "--since and --until are for --past", "'devgw sessions list --past'")
    live = [one.session for one in invocation_of(ctx).app.live_sessions.all(name)]
    out = Output(output, quiet=quiet)
    out.table(_HEADINGS, [_row(session) for session in live], {"sessions": [_document(session) for session in live]})
    if not live:
        out.note(f"{name or 'nobody'} is {'not ' if name else ''}connected")


@app.command()
def kill(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="As 'devgw sessions list' shows it.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="USER", help="All of this user's.", autocompletion=complete_users),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What the user is shown.")] = "",
    yes: YesOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """End connections; their users are shown why and may connect again."""
    require_line(reason)
    gateway = invocation_of(ctx).app
    chosen = _chosen(gateway.live_sessions, ids or [], user)
    out = Output(output, quiet=quiet)
    named = ", ".join(f"{one.session.id} of {one.session.user}" for one in chosen)
    if not out.confirm(f"end {named}? what runs in their terminals ends", yes=yes):
        out.note("nothing was ended")
        raise typer.Exit(Exit.FAILURE)
    gateway.administration.sessions.kill(chosen, reason)
    _await_end(gateway.live_sessions, chosen, time.sleep)
    document = {"ended": [_document(one.session) for one in chosen], "reason": reason}
    out.done(f"ended: {named}", document)


app.command()(recordings.play)
app.command()(recordings.search)


def _list_past(journal: Path, user: UserName | None, since: str | None, until: str | None, out: Output) -> None:
    """Show connections that have ended. Raises: UsageError, JournalError."""
    from gateway.audit.past_connections import past_connections
    from gateway.cli.moments import minute, moment_from
    from gateway.cli.quantities import size_text

    end = moment_from("--until", until) or datetime.now(UTC)
    begin = moment_from("--since", since) or end - _PAST_SPAN
    if end <= begin:
        raise UsageError("time.bad", "--until is not after --since", "a day is --since 2026-05-03 --until 2026-05-04")
    try:
        ended = list(past_connections(journal, begin, end, user)) if journal.exists() else []
    except (OSError, ValueError) as exc:
        raise JournalError("journal.unreadable", f"the journal in {journal} cannot be read: {exc}") from exc
    rows = [
        (
            one.id,
            one.user,
            one.address,
            one.environment,
            size_text(one.sent_bytes),
            size_text(one.received_bytes),
            minute(one.since),
            minute(one.until),
            one.reason,
        )
        for one in ended
    ]
    documents = [asdict(one) | {"since": one.since.isoformat(), "until": one.until.isoformat()} for one in ended]
    out.table(_PAST_HEADINGS, rows, {"sessions": documents})
    if not ended:
        out.note(f"{user or 'nobody'} was {'not ' if user else ''}connected from {minute(begin)} to {minute(end)} UTC")


def _chosen(table: "LiveSessionTable", ids: Sequence[str], user: str | None) -> "list[OwnedSession]":
    """Return the connections that are meant, each once; one that is not there spoils all.

    Raises:
        UsageError: `session.unnamed`.
        NotFoundError: `session.not-found`.
    """
    if bool(ids) == (user is not None):
        raise UsageError(
            "session.unnamed", "say which sessions: either by id or by --user", "'devgw sessions list' shows them"
        )
    if user is not None:
        name = parse_user_name(user)
        if not (found := table.all(name)):
            raise NotFoundError("session.not-found", f"{name} is not connected", "'devgw sessions list' shows who is")
        return found
    live = {one.session.id: one for one in table.all()}
    for wanted in ids:
        if wanted not in live:
            raise NotFoundError(
                "session.not-found",
                f"there is no session {wanted[:40]!r}",
                "'devgw sessions list' shows those there are",
            )
    return [live[wanted] for wanted in dict.fromkeys(ids)]


def _await_end(table: "LiveSessionTable", ended: "Sequence[OwnedSession]", pause: Callable[[float], None]) -> None:
    """Wait until they are gone. Raises: TimedOutError `session.not-ended`."""
    deadline = time.monotonic() + _END_SECONDS
    wanted = {(one.owner, one.session.id) for one in ended}
    while left := wanted & {(one.owner, one.session.id) for one in table.all()}:
        if time.monotonic() >= deadline:
            raise TimedOutError(
                "session.not-ended",
                f"asked for, but still there after {_END_SECONDS:g} s: {', '.join(sorted(name for _, name in left))}",
                "the log of 'devgw serve' may say why",
            )
        pause(_POLL_SECONDS)


def _row(session: "LiveSession") -> tuple[str, ...]:
    from gateway.cli.moments import minute
    from gateway.cli.quantities import size_text

    counted = Counter(channel.replace("\n", "\\n") for channel in session.channels)  # one line a row (invariant 9)
    return (
        session.id,
        session.user,
        session.fingerprint,
        session.address,
        session.environment,
        ", ".join(channel if count == 1 else f"{count} x {channel}" for channel, count in counted.items()),
        size_text(session.sent_bytes),
        size_text(session.received_bytes),
        minute(session.since),
    )


def _document(session: "LiveSession") -> dict[str, Any]:
    return {
        "id": session.id,
        "user": session.user,
        "fingerprint": session.fingerprint,
        "address": session.address,
        "environment": session.environment,
        "channels": list(session.channels),
        "sent_bytes": session.sent_bytes,
        "received_bytes": session.received_bytes,
        "since": session.since.isoformat(),
    }
