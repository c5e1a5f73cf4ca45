"""`devgw show`: all there is to say of one environment. Needs no engine."""

from typing import TYPE_CHECKING

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.model import Environment, EnvironmentRef, EnvironmentState

if TYPE_CHECKING:
    from gateway.environments.connection import Connection
    from gateway.environments.rounds import Outlook

app = command_app()


@app.command()
def show(ctx: typer.Context, handle: Handle, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """Show one environment."""
    from gateway.cli.observation import document_of, observe
    from gateway.environments.connection import Connection
    from gateway.environments.layout import Layout

    ref = EnvironmentRef.parse(handle)
    invocation = invocation_of(ctx)
    seen = observe(invocation.app, [invocation.app.table.require(ref)])
    environment = seen.environments[0]
    reach = Connection.of(invocation.settings, ref)
    volumes = str(Layout.of(invocation.settings.state_dir, ref).volumes)
    disk = invocation.app.disks.state(ref, environment.limits.disk_bytes)
    outlook = invocation.app.rounds.outlook(environment) if environment.state is EnvironmentState.RUNNING else None
    fingerprint = invocation.app.authority.host_key_fingerprint()
    document = {
        "environment": {
            **document_of(environment),
            **disk.document,
            "volumes": volumes,
            **_outlook_document(outlook),
        },
        "ssh_command": reach.ssh_line,
        "notebook_url": reach.notebook_url,
        "host_key_fingerprint": fingerprint,
        "engine_answers": not seen.silence,
        "caveats": list(seen.caveats),
    }
    out = Output(output, quiet=quiet)
    out.facts(
        {
            **_facts(environment, reach),
            "disk": disk.text,
            "files": volumes,
            **_host_key(fingerprint),
            **_outlook_facts(outlook),
        },
        document,
    )
    for note in (seen.note, *seen.caveats):
        if note:
            out.note(note)


def _host_key(fingerprint: str) -> dict[str, str]:
    return {"host key": fingerprint} if fingerprint else {}


def _outlook_document(outlook: "Outlook | None") -> dict[str, str | None]:
    if outlook is None:
        return dict.fromkeys(("active_at", "activity", "stops_at", "stops_because"))
    return {
        "active_at": outlook.active_at.isoformat(),
        "activity": outlook.activity,
        "stops_at": outlook.stop_at.isoformat() if outlook.stop_at else None,
        "stops_because": outlook.ending.cause if outlook.ending else None,
    }


def _outlook_facts(outlook: "Outlook | None") -> dict[str, str]:
    """Say when and why it would stop by itself."""
    if outlook is None:
        return {}
    last = f"{outlook.active_at:%Y-%m-%d %H:%M} UTC ({outlook.activity})"
    if outlook.ending is None or outlook.stop_at is None:
        return {"last use": last, "stops": "not by itself"}
    causes = {
        "lease": "its GPU lease ends",
        "idle": "if nobody uses it until then",
        "drain": "its node is drained",
        "image": "and starts anew with the image its channel names then",
    }
    cause = causes[outlook.ending.cause]
    return {"last use": last, "stops": f"{outlook.stop_at:%Y-%m-%d %H:%M} UTC, {cause}"}


def _image(environment: Environment) -> str:
    """Name the image, and which one it was at the last start."""
    from gateway.images.references import short

    return f"{environment.image} ({short(environment.image_digest)})" if environment.image_digest else environment.image


def _facts(environment: Environment, reach: "Connection") -> dict[str, str]:
    from gateway.cli.quantities import size_text

    limits = environment.limits
    told = environment.trouble or environment.detail
    detail = f" ({told})" if told else ""
    return {
        "handle": str(environment.ref),
        "state": f"{environment.state}{detail}",
        "connect": reach.ssh_line,
        "notebook": reach.notebook_url,
        "image": _image(environment),
        "engine": environment.engine,
        **({"node": environment.node} if environment.node else {}),
        "gpus": ", ".join(environment.gpus) or f"none held, {environment.gpu_request} asked for",
        "memory": f"{size_text(limits.memory_bytes)}, of it {size_text(limits.shm_bytes)} for /dev/shm",
        "cpus": f"{limits.cpus:g}",
        "processes": f"at most {limits.pids}",
        "datasets": ", ".join(environment.datasets) or "none",
        "egress": environment.egress,
        "created": environment.created_at.strftime("%Y-%m-%d %H:%M UTC"),
    }
