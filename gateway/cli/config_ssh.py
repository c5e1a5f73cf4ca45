"""`devgw config-ssh`: the lines by which a client's ssh knows its environments by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import Invocation, invocation_of
from gateway.cli.options import QuietOption, command_app, complete_handles
from gateway.cli.output import Output
from gateway.errors import NotFoundError
from gateway.model import EnvironmentRef

if TYPE_CHECKING:
    from gateway.environments.ssh_config import Gateway

app = command_app()


@app.command("config-ssh")
def config_ssh(
    ctx: typer.Context,
    handles: Annotated[
        list[str] | None,
        typer.Argument(metavar="[HANDLE]...", help="Default: every environment here.", autocompletion=complete_handles),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Keep them in ~/.ssh/devgw.conf, included by ~/.ssh/config.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --write: say what would change, change nothing.")
    ] = False,
    host: Annotated[str | None, typer.Option("--host", help="The gateway's name; default: server.public_host.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Default: server.port.")] = None,
    identity: Annotated[str, typer.Option("--identity", metavar="FILE", help="The private key to offer.")] = "",
    quiet: QuietOption = False,
) -> None:
    """Print, or keep, ssh configuration for a client."""
    from gateway.environments import ssh_config

    invocation = invocation_of(ctx)
    refs = [EnvironmentRef.parse(handle) for handle in handles or []] or _all_refs(invocation)
    text = ssh_config.blocks(_gateway(invocation, host, port, identity), refs)
    out = Output(quiet=quiet)
    if not (write or dry_run):
        out.text(text)
        return
    changes = ssh_config.plan(Path.home() / ".ssh", text)
    if not dry_run:
        ssh_config.write(changes)
    _tell(out, changes, refs, dry_run=dry_run)


def _all_refs(invocation: Invocation) -> list[EnvironmentRef]:
    refs = [environment.ref for environment in invocation.app.table.all()]
    if not refs:
        raise NotFoundError(
            "environment.not-found",
            "there are no environments here",
            "name one: 'devgw config-ssh alice --host GATEWAY'",
        )
    return refs


def _gateway(invocation: Invocation, host: str | None, port: int | None, identity: str) -> "Gateway":
    from gateway.environments.connection import public_host
    from gateway.environments.ssh_config import Gateway

    settings = invocation.settings
    fingerprint = invocation.app.authority.host_key_fingerprint() if settings.keys_dir.is_dir() else ""
    return Gateway(
        host or public_host(settings),
        port or settings.server.port,
        settings.server.notebook_port,
        identity,
        fingerprint,
    )


def _tell(out: Output, changes: "Sequence[object]", refs: Sequence[EnvironmentRef], *, dry_run: bool) -> None:
    from gateway.environments.ssh_config import Change, alias_of, local_ports, notebook_alias_of

    for change in changes:
        assert isinstance(change, Change)  # noqa: S101 - narrows what `plan` returned
        verb = ("would make" if change.is_new else "would change") if dry_run else "wrote"
        out.done(f"{verb} {change.path}", {})
    if not changes:
        out.done("nothing to change", {})
    port = local_ports(refs)[refs[0]]
    out.note(f"connect with: ssh {alias_of(refs[0])}")
    out.note(f"its notebook: ssh -N {notebook_alias_of(refs[0])}, then http://localhost:{port}")
