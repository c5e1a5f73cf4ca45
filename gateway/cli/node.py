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
def lost(
    ctx: typer.Context,
    name: NodeArgument,
    yes: YesOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Say that a node that does not answer is dead: its environments may start elsewhere."""
    out = Output(output, quiet=quiet)
    operations = invocation_of(ctx).app.node_operations
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
