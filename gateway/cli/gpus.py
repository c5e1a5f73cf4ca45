"""`devgw gpus`: what this host has and who holds it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.model import Gpu

if TYPE_CHECKING:
    from gateway.gpus.selection import Situation
    from gateway.gpus.sensors import Measurement
    from gateway.store.leases import Lease

app = command_app()

_LOAD = (
    "utilisation_percent", "memory_used_bytes", "memory_total_bytes", "power_watts", "temperature_celsius", "processes",
)  # fmt: skip

_HEADINGS = ("UUID", "INDEX", "NAME", "STATE", "HOLDER", "SINCE", "UNTIL", "LOAD", "MEMORY", "POWER")


@app.command()
def gpus(
    ctx: typer.Context,
    quarantine: Annotated[
        str | None, typer.Option("--quarantine", metavar="UUID", help="Take a GPU out of use.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for --quarantine.")] = "by hand",
    lift: Annotated[
        str | None, typer.Option("--lift", metavar="UUID", help="Put a GPU back into use.", show_default=False)
    ] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """List GPUs and who holds them."""
    gateway = invocation_of(ctx).app
    if quarantine is not None:
        gateway.administration.gpus.quarantine(quarantine, reason)
    if lift is not None:
        gateway.administration.gpus.lift(lift)
    reading, now = gateway.leases.situation()
    leases = {lease.gpu: lease for lease in gateway.lease_table.held()}
    measured = gateway.sensors.read().by_uuid()
    documents = [
        {**_document(gpu, now, leases.get(gpu.uuid)), **document_of_load(measured.get(gpu.uuid))}
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
    for one in documents:
        if one["reason"]:
            out.note(f"{one['uuid']} is out of use: {one['reason']}")
    if not documents:
        out.note("no GPU to lease; environments without one are made with --gpu 0")
    for uuid in sorted(leases.keys() - {gpu.uuid for gpu in reading.gpus}):
        out.note(f"{leases[uuid].ref} holds {uuid}, which this host no longer shows")


def _document(gpu: Gpu, now: "Situation", lease: "Lease | None") -> dict[str, Any]:
    holder = now.holders.get(gpu.uuid)
    reason = now.unusable.get(gpu.uuid)
    return {
        "uuid": gpu.uuid,
        "index": gpu.index,
        "name": gpu.name,
        "mig_profile": gpu.mig_profile,
        "memory_bytes": gpu.memory_bytes,
        "state": "quarantined" if reason else "leased" if holder else "free",
        "reason": reason,
        "holder": str(holder) if holder else None,
        "leased_at": lease.leased_at.isoformat() if lease else None,
        "ends_at": lease.ends_at.isoformat() if lease and lease.ends_at else None,
    }


def document_of_load(device: "Measurement | None") -> dict[str, Any]:
    """Return what a GPU does just now as the JSON output shows it; null is what the driver does not tell."""
    if device is None:
        return dict.fromkeys(_LOAD)
    return {
        "utilisation_percent": device.utilisation_percent,
        "memory_used_bytes": device.memory_used_bytes,
        "memory_total_bytes": device.memory_total_bytes,
        "power_watts": device.power_watts,
        "temperature_celsius": device.temperature_celsius,
        "processes": None if device.processes is None else len(device.processes),
    }


def load_cells(document: dict[str, Any]) -> tuple[str, str, str]:
    """Return load, memory and power as a table shows them."""
    from gateway.cli.quantities import size_text

    load, used, power = (document[name] for name in ("utilisation_percent", "memory_used_bytes", "power_watts"))
    total = document["memory_total_bytes"] or document.get("memory_bytes")
    sizes = [size_text(size) for size in (used, total) if size is not None and (size or total)]
    return (
        "-" if load is None else f"{load}%",
        " of ".join(sizes) or "-",
        "-" if power is None else f"{power:.0f} W",
    )


def _row(document: dict[str, Any]) -> tuple[str, ...]:
    return (
        document["uuid"],
        document["index"],
        document["name"],
        document["state"],
        document["holder"] or "-",
        (document["leased_at"] or "-")[:16].replace("T", " "),
        (document["ends_at"] or "-")[:16].replace("T", " "),
        *load_cells(document),
    )
