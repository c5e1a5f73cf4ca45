"""`devgw gpus`: what this host has and who holds it."""

from typing import Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output

app = command_app()

_HEADINGS = ("UUID", "INDEX", "NAME", "MEMORY", "HOLDER", "SINCE")


@app.command()
def gpus(ctx: typer.Context, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """List GPUs and who holds them."""
    gateway = invocation_of(ctx).app
    reading = gateway.inventory.read()
    leases = {lease.gpu: lease for lease in gateway.lease_table.held()}
    documents: list[dict[str, Any]] = [
        {
            "uuid": gpu.uuid,
            "index": gpu.index,
            "name": gpu.name,
            "mig_profile": gpu.mig_profile,
            "memory_bytes": gpu.memory_bytes,
            "holder": str(leases[gpu.uuid].ref) if gpu.uuid in leases else None,
            "leased_at": leases[gpu.uuid].leased_at.isoformat() if gpu.uuid in leases else None,
        }
        for gpu in reading.gpus
    ]
    out = Output(output, quiet=quiet)
    out.table(
        _HEADINGS,
        [_row(one) for one in documents],
        {"gpus": documents, "source": reading.source, "driver": reading.driver_version, "notes": list(reading.notes)},
    )
    for line in reading.notes:
        out.note(line)
    if not documents:
        out.note("no GPU to lease; environments without one are made with --gpu 0")
    for uuid in sorted(leases.keys() - {gpu.uuid for gpu in reading.gpus}):
        out.note(f"{leases[uuid].ref} holds {uuid}, which this host no longer shows")


def _row(document: dict[str, Any]) -> tuple[str, ...]:
    from gateway.cli.quantities import size_text

    return (
        document["uuid"],
        document["index"],
        document["name"],
        size_text(document["memory_bytes"]) if document["memory_bytes"] else "-",
        document["holder"] or "free",
        (document["leased_at"] or "-")[:16].replace("T", " "),
    )
