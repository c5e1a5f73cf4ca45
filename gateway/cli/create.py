"""`devgw create`: an environment for a user, and everything they need to reach it, printed once."""

from math import inf
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import Invocation, invocation_of
from gateway.cli.options import Handle, NoWaitOption, OutputOption, PasswordStdinOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.errors import NotFoundError
from gateway.model import Egress, Environment, EnvironmentRef, NodeName

if TYPE_CHECKING:
    from gateway.cli.password_input import NewPassword
    from gateway.config import Settings

app = command_app()


@app.command()
def create(  # noqa: PLR0913, PLR0917 - typer reads one parameter for each flag
    ctx: typer.Context,
    handle: Handle,
    gpu: Annotated[
        str, typer.Option("--gpu", metavar="GPUS", help="How many, or which: 1, h200:1, 1g.10gb, a UUID.")
    ] = "0",
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="FILE", help="The user's public key; - for stdin. May be repeated.", show_default=False
        ),
    ] = None,
    image: Annotated[str | None, typer.Option("--image", help="Image; default: environments.image.")] = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="Memory, such as 16GiB; default: environments.memory."),
    ] = None,
    disk: Annotated[
        str | None,
        typer.Option(
            "--disk",
            metavar="SIZE",
            help="Size of its volumes together, such as 50GiB; default: the policy's max_disk.",
        ),
    ] = None,
    cpus: Annotated[
        float | None, typer.Option("--cpus", metavar="N", help="CPUs, such as 4 or 0.5; default: environments.cpus.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help="A read-only dataset, or none; default: all that the policy permits. May be repeated.",
            show_default=False,
        ),
    ] = None,
    egress: Annotated[
        str | None,
        typer.Option(
            "--egress",
            metavar="WHERE",
            help="Connections to the outside: none, internet, or addresses with ports, separated by commas; "
            "default: environments.egress.",
            autocompletion=lambda: ["none", "internet"],
        ),
    ] = None,
    node: Annotated[
        str, typer.Option("--node", metavar="NAME", help="Only on this node; 'devgw nodes' lists them.")
    ] = "",
    no_wait: NoWaitOption = False,
    password_stdin: PasswordStdinOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Make an environment for a user and start it."""
    ref = EnvironmentRef.parse(handle)
    out = Output(output, quiet=quiet)
    invocation = invocation_of(ctx)
    settings = invocation.settings

    from gateway.auth.passwords import begin_hash
    from gateway.cli.password_input import obtain_password

    password = obtain_password(from_stdin=password_stdin)
    bcrypt_hash = begin_hash(password.text)  # a quarter of a second, beside the imports below

    from gateway.cli.key_input import read_public_keys
    from gateway.cli.quantities import host_cpus, limits_from
    from gateway.operations.environments import CreateOrder

    allowance = invocation.app.policy.allowance(ref.user)
    most_cpus = host_cpus() if invocation.app.engine_choice.runs_here else inf
    limits = limits_from(settings.environments, memory, cpus, disk, allowance.disk_bytes, most_cpus)
    if cpus is not None and cpus > most_cpus:
        out.note(f"this host has {most_cpus:g} CPUs; --cpus {cpus:g} is lowered to that")
    keys = read_public_keys(key or [])
    datasets = _chosen_datasets(invocation, ref, dataset)
    order = CreateOrder(
        ref=ref,
        image=image or settings.environments.image,
        limits=limits,
        gpu_request=gpu,
        datasets=datasets,
        egress=Egress(egress or settings.environments.egress),
        lifetime_seconds=allowance.lifetime_seconds,
        node=NodeName(node),
        keys=keys,
        bcrypt_hash=bcrypt_hash,
    )
    with out.progress() as progress:
        made = invocation.app.administration.environments.create(order, progress, wait=not no_wait)
    _show(out, invocation, made, password)


def _chosen_datasets(invocation: Invocation, ref: EnvironmentRef, names: list[str] | None) -> tuple[str, ...]:
    """Return what was named, or what the policy permits this user; `none` alone means none."""
    if names is None:
        from datetime import UTC, datetime

        from policies.limits import datasets_of

        policy = invocation.app.policy.policy
        return datasets_of(policy, ref.user, sorted(invocation.settings.datasets), datetime.now(UTC))
    return () if names == ["none"] else _require_datasets(invocation.settings, names)


def _require_datasets(settings: "Settings", names: list[str]) -> tuple[str, ...]:
    for name in names:
        if name not in settings.datasets:
            known = ", ".join(sorted(settings.datasets)) or "none"
            raise NotFoundError(
                "dataset.not-found", f"no dataset {name!r}", f"datasets in {settings.config_file}: {known}"
            )
    return tuple(dict.fromkeys(names))


def _show(out: Output, invocation: Invocation, made: Environment, password: "NewPassword") -> None:
    from gateway.cli.observation import document_of
    from gateway.environments.connection import Connection

    reach = Connection.of(invocation.settings, made.ref)
    document = {
        "environment": document_of(made),
        "ssh_command": reach.ssh_line,
        "notebook_url": reach.notebook_url,
        **({"notebook_password": password.text} if password.was_made else {}),
    }
    facts = {"connect": reach.ssh_line, "notebook": reach.notebook_url}
    if password.was_made:
        facts["password"] = password.text
    out.facts(facts, document)
    if password.was_made:
        out.note(f"the password is shown this once; 'devgw passwd {made.ref}' makes another")
    if made.limits.disk_bytes and (reason := invocation.app.disks.why_not()):
        out.note(f"nothing enforces the size of its disk: {reason}; 'devgw doctor' says more")
    if not invocation.app.users.keys(made.ref.user):
        out.note(f"{made.ref.user} has no key and cannot log in yet: 'devgw key add {made.ref.user} FILE'")
