"""`devgw sessions`: who is connected, how to end it, and recordings of terminals. Needs no engine."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, YesOption, command_app, complete_users
from gateway.cli.output import Form, Output
from gateway.cli.reason import require_line
from gateway.errors import Exit, NotFoundError, TimedOutError, UsageError
from gateway.model import parse_user_name

if TYPE_CHECKING:
    from gateway.store.sessions import LiveSession, LiveSessionTable, OwnedSession

app = command_app(help="List, end and play sessions.")

_HEADINGS = ("ID", "USER", "KEY", "ADDRESS", "ENVIRONMENT", "CHANNELS", "SENT", "RECEIVED", "SINCE")
_END_SECONDS = 5.0
_POLL_SECONDS = 0.05


@app.callback()
def sessions() -> None:
    """List, end and play sessions."""


@app.command("list")
def list_sessions(
    ctx: typer.Context,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Only this user's.", autocompletion=complete_users)
    ] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """List who is connected, with which key, from where, doing what."""
    name = None if user is None else parse_user_name(user)
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
    gateway.session_operations.kill(chosen, reason)
    _await_end(gateway.live_sessions, chosen, time.sleep)
    document = {"ended": [_document(one.session) for one in chosen], "reason": reason}
    out.done(f"ended: {named}", document)


@app.command()
def play(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording (asciicast v2).", show_default=False)],
    speed: Annotated[float, typer.Option("--speed", min=0.01, metavar="FACTOR", help="2 is twice as fast.")] = 1.0,
) -> None:
    """Show what a recorded terminal showed; it may drive yours, so use one that nothing hangs on."""
    from gateway.audit import recording

    recording.play(file, _show, time.sleep, speed=speed)


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


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
