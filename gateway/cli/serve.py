"""`devgw serve`: the gateway itself, in the foreground, for a service manager to keep."""

from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import command_app

app = command_app()


@app.command()
def serve(
    ctx: typer.Context,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="ADDRESS", help="Default: server.listen_address.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Default: server.port.")] = None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C."""
    from gateway.app.serve import run

    invocation = invocation_of(ctx)
    settings = invocation.settings
    said = {name: value for name, value in (("listen_address", listen), ("port", port)) if value is not None}
    server = settings.server.model_copy(update=said)
    code = run(invocation.app_with(settings.model_copy(update={"server": server})))
    if code:
        raise typer.Exit(code)
