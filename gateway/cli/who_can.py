"""`devgw who-can`: who may do something, and how they come by it. Needs no engine and no gateway."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app, complete_users
from gateway.cli.output import Form, Output
from gateway.errors import UsageError
from gateway.model import PublicKey, parse_user_name

if TYPE_CHECKING:
    from gateway.app.composition import App
    from policies.model import Policy
    from policies.reach import Reach

app = command_app()

_HEADINGS = ("USER", "QUESTION", "ROLE", "GRANT", "UNTIL", "KEYS", "KEY LAST USED")


@app.command("who-can")
def who_can(
    ctx: typer.Context,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="USER", help="Only this person.", autocompletion=complete_users),
    ] = None,
    forward: Annotated[
        str | None, typer.Option("--forward", metavar="[HOST:]PORT", help="May open this port (-L).")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", metavar="NAME", help="May mount this dataset.")] = None,
    shared: Annotated[
        str | None, typer.Option("--shared", metavar="NAME[:rw]", help="May read this shared volume; :rw: write to it.")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="May have a GPU.")] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Say who may do something, by which role and grant, with which keys."""
    gateway, out, now = invocation_of(ctx).app, Output(output, quiet=quiet), datetime.now(UTC)
    policy, people = gateway.policy.policy, _people(gateway)
    name = parse_user_name(user) if user else None
    questions = tuple(_questions(forward, dataset, shared, gpu=gpu))
    if name and not questions:
        _show_person(out, gateway, name, people.get(name, ()), now)
        return
    users = [name] if name else sorted({*people, *policy.holders.users()})
    found = list(_allowed(policy, users, questions or ("login",), now))
    documents = [{**reach.as_dict(), "keys": _key_documents(people.get(reach.user, ()))} for reach in found]
    rows = [(one,) for one in dict.fromkeys(reach.user for reach in found)] if quiet else list(_rows(found, people))
    out.table(_HEADINGS, rows, {"at": now.isoformat(), "who": documents})
    shut = {one.name for one in gateway.users.all() if one.disabled} if people else set()
    for one in sorted(shut & {reach.user for reach in found}):
        out.note(f"{one} is disabled and gets in only when enabled again")
    if not found:
        out.note("nobody")


def _people(gateway: "App") -> Mapping[str, Sequence[PublicKey]]:
    """Return known users with their keys; none where there is no database to ask."""
    path = gateway.database.path
    return {} if path is not None and not path.exists() else gateway.users.keys_by_user()


def _questions(forward: str | None, dataset: str | None, shared: str | None, *, gpu: bool) -> Iterator[str]:
    if forward is not None:
        yield f"forward {forward}" if ":" in forward else f"forward localhost:{forward}"
    if dataset is not None:
        yield f"dataset {dataset}"
    if shared is not None:
        yield f"shared {shared.replace(':', ' ', 1)}"
    if gpu:
        yield "gpu"


def _allowed(policy: "Policy", users: Sequence[str], questions: Sequence[str], at: datetime) -> "Iterator[Reach]":
    from policies import reach

    try:
        for question in questions:
            yield from (one for one in reach.who_can(policy, users, question, at) if one.decision.allowed)
    except ValueError as exc:
        raise UsageError("question.bad", str(exc), "for example 'devgw who-can --forward 6006'") from exc


def _rows(found: "Sequence[Reach]", people: Mapping[str, Sequence[PublicKey]]) -> Iterator[tuple[str, ...]]:
    from gateway.cli.moments import day

    for one in found:
        keys = people.get(one.user, ())
        used = max((key.last_used_at for key in keys if key.last_used_at), default=None)
        for role, grant, until in one.grants:
            yield one.user, one.question, role, grant, day(until, "no end"), str(len(keys)), day(used, "never")


def _show_person(out: Output, gateway: "App", name: str, keys: Sequence[PublicKey], now: datetime) -> None:
    """Show all that one person may do."""
    from gateway.audit.review import Person, access_of
    from gateway.cli.moments import day
    from gateway.model import User, UserName

    known = gateway.users.get(name) if keys or _people(gateway) else None
    user = known or User(UserName(name), 0, now)
    access = access_of(gateway.policy.policy, Person(user, tuple(keys)), sorted(gateway.settings.datasets), now)
    facts = {"user": name + (" (disabled)" if user.disabled else "")} | dict(access.may)
    facts |= {f"role {role}": f"{grant}, until {day(until, 'no end')}" for role, grant, until in access.grants}
    facts |= {
        f"key {number}": f"{key.fingerprint} {key.kind}, last used {day(key.last_used_at, 'never')}"
        + ("" if key.accepted else f"; refused: {key.why}")
        for number, key in enumerate(access.keys, 1)
    }
    out.facts(facts, {"at": now.isoformat(), "person": access.as_dict()})
    if known is None:
        out.note(f"no user {name!r} exists yet; whoever is given that name has this")


def _key_documents(keys: Sequence[PublicKey]) -> list[dict[str, Any]]:
    return [
        {
            "fingerprint": key.fingerprint,
            "type": key.algorithm,
            "last_used_at": None if key.last_used_at is None else key.last_used_at.isoformat(),
        }
        for key in keys
    ]
