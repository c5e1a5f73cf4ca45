"""`devgw top`: what every GPU does just now, and for whom. Lives on a terminal, is written once elsewhere."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output, is_terminal

if TYPE_CHECKING:
    from gateway.cli.top_view import Look

app = command_app()

_HEADINGS = ("INDEX", "HOLDER", "LOAD", "MEMORY", "POWER", "TEMP", "PROCESSES", "NAME")
_DISKS_MAX = 5
"""Disks that are shown; the fullest come first."""


@app.command()
def top(
    ctx: typer.Context,
    interval: Annotated[float, typer.Option("--interval", metavar="SECONDS", min=0.5, help="Between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, also on a terminal.")] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Watch the GPUs, with who is connected and who waits; Ctrl-C ends it."""
    gateway = invocation_of(ctx).app
    out = Output(output, quiet=quiet)
    if output is Form.TABLE and not once and is_terminal(sys.stdout):
        _watch(gateway, interval)
        return
    documents, document = _look(gateway)
    out.table(_HEADINGS, [_row(one) for one in documents], document)
    if document["error"]:
        out.note(f"NVML: {document['error']}")
    for disk in document["disks"]:
        out.note(_disk_line(disk))


def _watch(gateway: Any, interval: float) -> None:
    """Show it on the terminal's other screen until Ctrl-C, which is no failure."""
    from rich.console import Console
    from rich.live import Live

    from gateway.cli.top_view import History, view

    console, history = Console(), History()
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                look = _live_look(gateway)
                history.add(look)
                live.update(view(look, history, ascii_only=console.options.ascii_only), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return


def _live_look(gateway: Any) -> "Look":
    from gateway.cli.top_view import Connection, Look

    gpus, document = _look(gateway)
    connections = [
        Connection(
            one.session.id,
            one.session.user,
            one.session.environment,
            one.session.address,
            len(one.session.channels),
            one.session.sent_bytes,
            one.session.received_bytes,
        )
        for one in gateway.live_sessions.all()
    ]
    waiting = [f"{place.waiter.ref} ({place.waiter.gpu_request})" for place in gateway.waiting.places()]
    disks = [_disk_line(disk) for disk in document["disks"]]
    return Look(time.monotonic(), gpus, connections, waiting, document["error"] or "", disks)


def _look(gateway: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from gateway.cli.gpus import document_of_load

    sensors = gateway.sensors.read()
    holders = {lease.gpu: str(lease.ref) for lease in gateway.lease_table.held()}
    gpus = [
        {
            "uuid": device.uuid,
            "index": device.index,
            "name": device.name,
            "holder": holders.get(device.uuid),
            **document_of_load(device),
        }
        for device in sensors.devices
    ]
    error = sensors.error or None
    return gpus, {"gpus": gpus, "driver": sensors.driver, "error": error, "disks": _disks(gateway)}


def _disks(gateway: Any) -> list[dict[str, Any]]:
    """Return the fullest disks that environments have of their own; those that nothing keeps come last."""
    states = [(str(one.ref), gateway.disks.state(one.ref, one.limits.disk_bytes)) for one in gateway.table.all()]
    sized = [(handle, state) for handle, state in states if state.size_bytes]
    sized.sort(key=lambda pair: pair[1].use.percent if pair[1].use else -1, reverse=True)
    return [{"handle": handle, "text": state.text, **state.document} for handle, state in sized[:_DISKS_MAX]]


def _disk_line(document: dict[str, Any]) -> str:
    percent = document["disk_used_percent"]
    return f"disk of {document['handle']}: {'' if percent is None else f'{percent} % full; '}{document['text']}"


def _row(document: dict[str, Any]) -> tuple[str, ...]:
    from gateway.cli.gpus import load_cells

    temperature, processes = document["temperature_celsius"], document["processes"]
    return (
        document["index"],
        document["holder"] or "free",
        *load_cells(document),
        "-" if temperature is None else f"{temperature}°C",
        "-" if processes is None else str(processes),
        document["name"],
    )
