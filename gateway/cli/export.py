"""`devgw export`: an environment in another program's words, hardened alike. Nothing is made or started."""

from typing import Annotated, Any, Protocol, runtime_checkable

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, QuietOption, command_app
from gateway.cli.output import Output
from gateway.errors import EngineError, UsageError
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec

app = command_app()


@runtime_checkable
class Composing(Protocol):
    """An engine that knows Compose."""

    def compose(self, spec: EnvironmentSpec) -> dict[str, Any]: ...


@app.command()
def export(
    ctx: typer.Context,
    handle: Handle,
    compose: Annotated[bool, typer.Option("--compose", help="As a Compose file, on stdout.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Write an environment down for another program."""
    import yaml

    if not compose:
        raise UsageError("export.no-form", "nothing says for which program", "add --compose")
    ref = EnvironmentRef.parse(handle)
    gateway, out = invocation_of(ctx).app, Output(quiet=quiet)
    spec, engine = gateway.environments.spec_of(ref), gateway.engine
    if not isinstance(engine, Composing):
        message = f"the engine {engine.name} has no images that Compose could start from"
        raise EngineError("export.no-compose", message, "a site with Docker exports its environments")
    out.text(yaml.safe_dump(engine.compose(spec), sort_keys=False))
    if spec.egress != Egress.NONE:
        out.note(f"it gets no network: what confines {spec.egress} is the gateway's own")
    out.note(f"it uses the files of {ref}: 'devgw stop {ref}' before you start it, for a home has one writer")
