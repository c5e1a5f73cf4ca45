"""`devgw nodes`: the machines that environments run on, and what is on each. One host is one node."""

from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output

if TYPE_CHECKING:
    from gateway.operations.nodes import NodeView

app = command_app()

_HEADINGS = ("NODE", "STATE", "GPUS", "FREE", "ENVIRONMENTS", "CONDITIONS")


@app.command()
def nodes(ctx: typer.Context, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """List nodes: GPUs, free ones, environments, conditions."""
    views = invocation_of(ctx).app.administration.nodes.all()
    out = Output(output, quiet=quiet)
    documents = [document_of(view) for view in views]
    out.table(_HEADINGS, [_row(one) for one in documents], {"nodes": documents})
    for view in views:
        if not view.node.is_ready:
            name = view.node.name
            out.note(f"{name} does not answer; its environments are left alone until it does, or 'devgw node lost'")


def document_of(view: "NodeView") -> dict[str, Any]:
    """Return a node as the JSON output shows it."""
    from gateway.environments.reconcile import state_word
    from gateway.operations.nodes import state_word as node_word

    return {
        "name": view.node.name,
        "state": node_word(view.node),
        "takes_new": view.node.is_ready and view.node.takes_new,
        "gpus": [_gpu(gpu.uuid, gpu.mig_profile or gpu.name) for gpu in view.gpus],
        "free_gpus": [gpu.uuid for gpu in view.free],
        "environments": [{"handle": str(one.ref), "state": state_word(one)} for one in view.environments],
        "conditions": list(view.node.conditions),
    }


def _gpu(uuid: str, kind: str) -> dict[str, str]:
    return {"uuid": uuid, "kind": kind}


def _row(document: dict[str, Any]) -> tuple[str, ...]:
    kinds: dict[str, int] = {}
    for gpu in document["gpus"]:
        kinds[gpu["kind"]] = kinds.get(gpu["kind"], 0) + 1
    return (
        document["name"],
        document["state"],
        ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "-",
        str(len(document["free_gpus"])),
        ", ".join(one["handle"] for one in document["environments"]) or "-",
        ", ".join(document["conditions"]) or "-",
    )
