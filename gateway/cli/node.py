"""`devgw node …`: acts on one machine."""

from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, YesOption, command_app
from gateway.cli.output import Form, Output
from gateway.errors import Exit
from gateway.model import NodeName

app = command_app(help="Act on one node.")
NodeArgument = Annotated[str, typer.Argument(metavar="NAME", help="The node, as 'devgw nodes' names it.")]


@app.callback()
def _group() -> None:
    """Act on one node."""


@app.command()
def drain(
    ctx: typer.Context,
    name: NodeArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; users are told.")] = "maintenance",
    stop_after: Annotated[
        str | None,
        typer.Option(
            "--stop-after", metavar="DURATION", help="Stop what runs there after this: 4h.", show_default=False
        ),
    ] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Keep new environments away from a node, and tell those who are there."""
    from gateway.cli.extend import parse_positive_duration

    seconds = None if stop_after is None else parse_positive_duration(stop_after)
    drained = invocation_of(ctx).app.administration.nodes.drain(name, reason, seconds)
    until = f"what runs there stops at {drained.stop_at:%Y-%m-%d %H:%M} UTC" if drained.stop_at else "what runs stays"
    document = {
        "drained": drained.node,
        "reason": drained.reason,
        "stop_at": drained.stop_at.isoformat() if drained.stop_at else None,
    }
    Output(output, quiet=quiet).done(f"{name} gets nothing new; {until}", document)


@app.command()
def undrain(
    ctx: typer.Context, name: NodeArgument, output: OutputOption = Form.TABLE, quiet: QuietOption = False
) -> None:
    """Let a node have new environments again."""
    invocation_of(ctx).app.administration.nodes.undrain(name)
    Output(output, quiet=quiet).done(f"{name} gets new environments again", {"undrained": name})


@app.command()
def lost(
    ctx: typer.Context,
    name: NodeArgument,
    yes: YesOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Say that a node that does not answer is dead: its environments may start elsewhere."""
    out = Output(output, quiet=quiet)
    operations = invocation_of(ctx).app.administration.nodes
    node = NodeName(name)
    there = ", ".join(map(str, operations.on(node))) or "nothing"
    question = (
        f"is {name} dead for certain? {there} may be started elsewhere then; if it still runs there, "
        "its files have two writers"
    )
    if not out.confirm(question, yes=yes):
        out.note("nothing was changed")
        raise typer.Exit(Exit.FAILURE)
    refs = operations.declare_lost(node)
    freed = ", ".join(map(str, refs)) or "no environment"
    out.done(f"{name} is lost; may be started elsewhere: {freed}", {"lost": name, "environments": list(map(str, refs))})
