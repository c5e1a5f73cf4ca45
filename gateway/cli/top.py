"""`devgw top`: what every GPU does just now, and for whom. Lives on a terminal, is written once elsewhere."""

import sys
import time
from typing import Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output, is_terminal

app = command_app()

_HEADINGS = ("INDEX", "HOLDER", "LOAD", "MEMORY", "POWER", "TEMP", "PROCESSES", "NAME")
_FROM_THE_TOP = "\x1b[H\x1b[J"  # ECMA-48: cursor home, erase below


@app.command()
def top(
    ctx: typer.Context,
    interval: Annotated[float, typer.Option("--interval", metavar="SECONDS", min=0.5, help="Between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, also on a terminal.")] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Watch the GPUs; Ctrl-C ends it."""
    gateway = invocation_of(ctx).app
    out = Output(output, quiet=quiet)
    lives = output is Form.TABLE and not once and is_terminal(sys.stdout)
    try:
        while True:
            documents, document = _look(gateway)
            if lives:
                out.text(_FROM_THE_TOP)
            out.table(_HEADINGS, [_row(one) for one in documents], document)
            if document["error"]:
                out.note(f"NVML: {document['error']}")
            if not lives:
                return
            time.sleep(interval)
    except KeyboardInterrupt:  # how one leaves it: no failure
        return


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
    return gpus, {"gpus": gpus, "driver": sensors.driver, "error": sensors.error or None}


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
