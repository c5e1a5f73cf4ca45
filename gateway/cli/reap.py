"""`devgw reap`: environments that the engine has and the store does not know, shown and, on demand, removed."""

from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, YesOption, command_app
from gateway.cli.output import Form, Output

app = command_app()

_HEADINGS = ("HANDLE", "STATE", "GPUS", "IMAGE")


@app.command()
def reap(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: YesOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Remove environments that the engine has and this gateway's store does not know."""
    from gateway.engines.interface import named
    from gateway.environments.reconcile import state_word

    gateway = invocation_of(ctx).app
    orphans = gateway.reconciler.orphans()
    out = Output(output, quiet=quiet)
    if any(not one.is_unknown for one in orphans) and not dry_run:
        handles = ", ".join(str(one.ref) for one in orphans if not one.is_unknown)
        dry_run = not out.confirm(f"remove {handles}? what runs in them ends, files on volumes stay", yes=yes)
    known = [one.ref for one in orphans if not one.is_unknown]
    removed = [] if dry_run else [ref for ref in known if gateway.administration.environments.reap(ref)]
    rows = [(str(one.ref), state_word(one), ",".join(one.gpus) or "-", named(one.image) or "-") for one in orphans]
    document = {
        "orphans": [
            {
                "handle": str(one.ref),
                "running": one.running,
                "state": state_word(one),
                "node": one.node,
                "gpus": list(one.gpus),
                "image": one.image,
            }
            for one in orphans
        ],
        "removed": [str(ref) for ref in removed],
    }
    out.table(_HEADINGS, rows, document)
    for one in orphans:
        if one.is_unknown:
            out.note(f"{one.ref} is left alone: its node {one.node} does not answer")
    if not orphans:
        out.note("the engine has nothing that the store does not know")
    elif dry_run:
        out.note("nothing was removed; without --dry-run they are")
