"""`devgw move`: a user, with all that is theirs, to another host that runs devgw."""

import shlex
from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, ReasonOption, UserArgument, command_app
from gateway.cli.output import Form, Output
from gateway.cli.reason import require_line
from gateway.errors import UsageError
from gateway.model import parse_user_name

app = command_app()


@app.command()
def move(  # noqa: PLR0913, PLR0917 - typer reads one parameter for each flag
    ctx: typer.Context,
    user: UserArgument,
    to: Annotated[
        str, typer.Option("--to", metavar="[ADMIN@]HOST", help="The other host, as ssh knows it.", show_default=False)
    ] = "",
    reason: ReasonOption = "",
    check: Annotated[bool, typer.Option("--check", help="Ask whether they could go, and change nothing.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Put back a user who is not there yet.")] = False,
    without_target: Annotated[
        bool, typer.Option("--without-target", help="With --abort: the other host is gone for good, so do not ask it.")
    ] = False,
    ssh: Annotated[
        str,
        typer.Option("--ssh", metavar="COMMAND", help="In place of ssh, with its options, as rsync's -e takes it."),
    ] = "",
    devgw: Annotated[
        str, typer.Option("--devgw", metavar="COMMAND", help="How devgw is called there, such as 'sudo -n devgw'.")
    ] = "",
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Move a user to another host; the same command again goes on with what was cut off."""
    from gateway.operations.departure import MoveOrder

    out = Output(output, quiet=quiet)
    require_line(reason)
    words = (_words("--ssh", ssh), _words("--devgw", devgw))
    order = MoveOrder(parse_user_name(user), to, reason, *words)
    departures = invocation_of(ctx).app.administration.departures
    if (abort and check) or (without_target and not abort):
        raise UsageError("move.bad-flags", "--check goes alone, --without-target with --abort", "'devgw move --help'")
    with out.progress() as progress:
        if check:
            reply = departures.check(order)
        elif abort:
            moved = departures.abort(order, progress, without_target=without_target)
        else:
            moved = departures.run(order, progress)
    if check:
        document = {"user": user, "to": to, "host": reply.host, "devgw": reply.devgw, "notes": list(reply.notes)}
        out.done(f"{user} could move to {reply.host}", document)
        for line in reply.notes:
            out.note(line)
        return
    done = {
        "user": user, "move": moved.move.id, "to": moved.move.other, "step": moved.move.step,
        "ssh_command": moved.ssh_line or None, "kept": moved.kept or None, "notes": list(moved.notes),
    }  # fmt: skip
    out.done(_said_of(user, moved.move.other, moved.kept, is_aborted=abort), done)
    for line in moved.notes:
        out.note(line)
    if not abort:
        out.note(f"{user} connects by: {moved.ssh_line}")


def _said_of(user: str, other: str, kept: str, *, is_aborted: bool) -> str:
    return f"{user} stays here" if is_aborted else f"{user} is on {other} now; what was here is kept in {kept}"


def _words(flag: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as exc:
        raise UsageError("move.bad-flags", f"{flag}: {str(exc).lower()}", "quote words as in a shell") from exc
