"""`devgw metrics`: the numbers of the gateway that serves, as Prometheus reads them."""

from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import command_app
from gateway.cli.output import Output

app = command_app()
_TEXT, _OPENMETRICS = "text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0"


@app.command()
def metrics(
    ctx: typer.Context,
    openmetrics: Annotated[bool, typer.Option("--openmetrics", help="Write OpenMetrics instead of the text.")] = False,
) -> None:
    """Print the gateway's numbers, as Prometheus reads them."""
    from gateway.metrics.socket import fetch

    socket = invocation_of(ctx).app.settings.metrics_socket
    Output().text(fetch(socket, _OPENMETRICS if openmetrics else _TEXT))
