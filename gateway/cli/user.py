"""`devgw user`: who is known, by which keys, and whose door is shut."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, UserArgument, YesOption, command_app
from gateway.cli.output import Form, Output
from gateway.model import User, parse_user_name

app = command_app(help="Add and list users, shut one out, let one in again, remove one.")

_HEADINGS = ("USER", "DOOR", "KEYS", "ENVIRONMENTS", "SINCE")


@app.command()
def add(
    ctx: typer.Context,
    user: UserArgument,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="FILE", help="The user's public key; - for stdin. May be repeated.", show_default=False
        ),
    ] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Make a user known who has no environment yet; 'devgw create' does so by itself."""
    from gateway.cli.key_input import read_public_keys

    name, keys = parse_user_name(user), read_public_keys(key or [])
    made = invocation_of(ctx).app.administration.users.add(name, keys)
    out = Output(output, quiet=quiet)
    document = {"user": _document(made), "keys": [one.fingerprint for one in keys]}
    out.done(f"{name} is known" + (f" and may log in with {', '.join(document['keys'])}" if keys else ""), document)
    if not keys:
        out.note(f"{name} has no key and cannot log in yet: 'devgw key add {name} FILE'")


@app.command("list")
def list_users(ctx: typer.Context, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """List users."""
    gateway = invocation_of(ctx).app
    keys = gateway.users.keys_by_user()
    environments = Counter(str(one.ref.user) for one in gateway.table.all())
    documents = [
        _document(user)
        | {"keys": len(theirs), "environments": environments[user.name]}
        | {"public_keys": [{"fingerprint": key.fingerprint, "line": key.line} for key in theirs]}
        for user, theirs in ((user, keys.get(user.name, [])) for user in gateway.users.all())
    ]
    rows = [
        (
            one["name"],
            _door(one),
            str(one["keys"]),
            str(one["environments"]),
            one["created_at"][:10],
        )
        for one in documents
    ]
    Output(output, quiet=quiet).table(_HEADINGS, rows, {"users": documents})


@app.command()
def delete(
    ctx: typer.Context,
    user: UserArgument,
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="FILE", help="Keep their files, keys and settings in a tar: .tar, .tar.gz."),
    ] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Remove their files for good, without an archive.")] = False,
    yes: YesOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Remove a user with their environments, keys and files; with --archive these are kept in a tar."""
    gateway, out, name = invocation_of(ctx).app, Output(output, quiet=quiet), parse_user_name(user)
    gateway.users.require(name)
    kept = f", and keep what is theirs in {archive}" if archive else ""
    if not out.confirm(f"remove {name} and everything that is theirs{kept}?", yes=yes):
        out.note("nothing was removed")
        return
    digest = gateway.administration.removal.delete(name, archive_at=archive, purge=purge)
    document = {"user": name, "archive": str(archive or ""), "sha256": digest}
    out.done(f"{name} is removed" + (f"; {archive} has sha256 {digest}" if digest else ""), document)


@app.command()
def disable(
    ctx: typer.Context, user: UserArgument, output: OutputOption = Form.TABLE, quiet: QuietOption = False
) -> None:
    """Shut a user out; their live sessions end."""
    changed = invocation_of(ctx).app.administration.users.disable(parse_user_name(user))
    Output(output, quiet=quiet).done(f"{changed.name} is shut out", {"user": _document(changed)})


@app.command()
def enable(
    ctx: typer.Context, user: UserArgument, output: OutputOption = Form.TABLE, quiet: QuietOption = False
) -> None:
    """Let a user in again."""
    changed = invocation_of(ctx).app.administration.users.enable(parse_user_name(user))
    Output(output, quiet=quiet).done(f"{changed.name} may log in again", {"user": _document(changed)})


def _door(document: dict[str, Any]) -> str:
    """Say whether they get in: `moving` and `moved` are told where to go."""
    if document["closed_because"]:
        return "moving" if document["move"] else "moved"
    return "shut" if document["disabled"] else "open"


def _document(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "uid": user.uid,
        "disabled": user.disabled,
        "created_at": user.created_at.isoformat(),
        "move": user.move or None,
        "closed_because": user.closed_because or None,
    }
