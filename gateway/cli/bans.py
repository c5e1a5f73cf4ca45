"""`devgw bans`: which addresses and users are shut out after failed logins, and how to let them in. Needs no engine."""

from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.cli.reason import require_line

if TYPE_CHECKING:
    from gateway.auth.throttle import Ban

app = command_app(help="List and lift bans after failed logins.")

_HEADINGS = ("ADDRESS", "USER", "LEFT", "UNTIL", "BANS", "BECAUSE")


@app.callback()
def bans() -> None:
    """List and lift bans after failed logins."""


@app.command("list")
def list_bans(ctx: typer.Context, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """List who is shut out, for how long and why."""
    found = invocation_of(ctx).app.administration.bans.all()
    out = Output(output, quiet=quiet)
    out.table(_HEADINGS, [_row(ban) for ban in found], {"bans": [_document(ban) for ban in found]})
    if not found:
        out.note("nobody is banned")


@app.command()
def lift(
    ctx: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="As 'devgw bans list' shows it.")],
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Only this name at that address.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What the journal keeps.")] = "",
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Let an address, or one user name there, in again; what was counted against it is forgotten."""
    require_line(reason)
    lifted = invocation_of(ctx).app.administration.bans.lift(address, user, reason)
    names = ", ".join(ban.address if ban.user is None else f"{ban.user} at {ban.address}" for ban in lifted)
    Output(output, quiet=quiet).done(f"lifted: {names}", {"lifted": [_document(ban) for ban in lifted]})


def _row(ban: "Ban") -> tuple[str, ...]:
    from gateway.cli.moments import minute
    from gateway.cli.quantities import age_text

    return (
        ban.address,
        "all" if ban.user is None else ban.user.encode("unicode_escape").decode(),
        age_text(ceil(ban.left_seconds)),
        minute(_moment(ban)),
        str(ban.bans),
        ban.reason,
    )


def _document(ban: "Ban") -> dict[str, Any]:
    return {
        "address": ban.address,
        "user": ban.user,
        "left_seconds": ceil(ban.left_seconds),
        "until": _moment(ban).isoformat(),
        "bans": ban.bans,
        "reason": ban.reason,
    }


def _moment(ban: "Ban") -> datetime:
    return datetime.fromtimestamp(ban.until, UTC)
