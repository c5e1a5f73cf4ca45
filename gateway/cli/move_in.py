"""`devgw move-in`: what `devgw move` of another host asks of this one, over ssh; and who arrives here."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output

if TYPE_CHECKING:
    from gateway.moves.description import Description, Reply

app = command_app(help="Take a user in from another host: what its 'devgw move' asks here, over ssh.")

MoveArgument = Annotated[str, typer.Argument(metavar="MOVE", help="The move's id.", show_default=False)]
_HEADINGS = ("MOVE", "USER", "FROM", "STEP", "SINCE")


@app.command()
def check(ctx: typer.Context) -> None:
    """Say whether the user whom stdin describes could come; nothing is changed."""
    _answer(invocation_of(ctx).app.administration.arrivals.check(_description()))


@app.command()
def begin(ctx: typer.Context) -> None:
    """Keep the name of the user whom stdin describes, and a place for their files."""
    _answer(invocation_of(ctx).app.administration.arrivals.begin(_description()))


@app.command()
def files(
    ctx: typer.Context,
    move: MoveArgument,
    environment: Annotated[str, typer.Argument(metavar="ENVIRONMENT", help="Its name.", show_default=False)],
    volume: Annotated[
        str, typer.Argument(metavar="VOLUME", help="home, workspace, checkpoints or logs.", show_default=False)
    ],
    arguments: Annotated[list[str], typer.Argument(metavar="ARGS", help="What rsync adds.", show_default=False)],
) -> None:
    """Be the other end of rsync for a volume."""
    raise typer.Exit(invocation_of(ctx).app.administration.arrivals.receive(move, environment, volume, arguments))


@app.command()
def activate(ctx: typer.Context) -> None:
    """Give the user whom stdin describes all that is theirs, and open the door."""
    _answer(invocation_of(ctx).app.administration.arrivals.activate(_description()))


@app.command()
def abort(
    ctx: typer.Context,
    move: Annotated[
        str, typer.Argument(metavar="[MOVE]", help="The move's id; without one stdin says it.", show_default=False)
    ] = "",
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Give up somebody who does not come after all: the name is free again, what had arrived is removed."""
    from gateway.moves.description import Reply
    from gateway.version import VERSION

    arrivals = invocation_of(ctx).app.administration.arrivals
    if not move:
        gone = arrivals.abort(_description().id)
        _answer(Reply(devgw=VERSION, step="" if gone is None else gone.step))
        return
    arrivals.require(move)
    gone = arrivals.abort(move)
    assert gone is not None  # noqa: S101 - it is known
    Output(output, quiet=quiet).done(f"{gone.user} does not come", {"user": gone.user, "move": gone.id})


@app.command("list")
def list_moves(ctx: typer.Context, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """List who came from other hosts, or is about to."""
    moves = invocation_of(ctx).app.administration.arrivals.all()
    documents = [
        {"move": one.id, "user": one.user, "from": one.other, "step": one.step, "begun_at": one.begun_at.isoformat()}
        for one in moves
    ]
    rows = [(one.id, one.user, one.other, one.step, f"{one.begun_at:%Y-%m-%d %H:%M}") for one in moves]
    Output(output, quiet=quiet).table(_HEADINGS, rows, {"moves": documents})


def _description() -> "Description":
    from gateway.moves.description import Description, parse

    return parse(Description, sys.stdin.buffer.read(), "the other host")


def _answer(reply: "Reply") -> None:
    sys.stdout.write(reply.model_dump_json() + "\n")
    sys.stdout.flush()
