"""`devgw key`: the public keys by which a user may log in."""

from datetime import datetime
from typing import Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, UserArgument, command_app
from gateway.cli.output import Form, Output
from gateway.model import PublicKey, parse_user_name

app = command_app(help="Add, list and remove the public keys of users.")

_HEADINGS = ("FINGERPRINT", "TYPE", "BITS", "ADDED", "LAST USED", "COMMENT")


@app.command()
def add(
    ctx: typer.Context,
    user: UserArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A public key file, or - for stdin.", show_default=False)],
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Let a key in."""
    from gateway.cli.key_input import read_public_key

    name = parse_user_name(user)
    key = read_public_key(file)
    invocation_of(ctx).app.administration.keys.add(name, key)
    Output(output, quiet=quiet).done(f"{name} may log in with {key.fingerprint}", {"user": name, "key": _document(key)})


@app.command("list")
def list_keys(
    ctx: typer.Context, user: UserArgument, output: OutputOption = Form.TABLE, quiet: QuietOption = False
) -> None:
    """List a user's keys."""
    name = parse_user_name(user)
    users = invocation_of(ctx).app.users
    users.require(name)
    keys = users.keys(name)
    out = Output(output, quiet=quiet)
    document = {"user": name, "keys": [_document(key) for key in keys]}
    out.table(_HEADINGS, [_row(key) for key in keys], document)
    if not keys:
        out.note(f"{name} has no key and cannot log in; 'devgw key add {name} FILE' adds one")


@app.command()
def remove(
    ctx: typer.Context,
    user: UserArgument,
    fingerprint: Annotated[
        str, typer.Argument(metavar="FINGERPRINT", help="As 'devgw key list' shows it.", show_default=False)
    ],
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Shut a key out; its live sessions end."""
    name = parse_user_name(user)
    invocation_of(ctx).app.administration.keys.remove(name, fingerprint)
    Output(output, quiet=quiet).done(
        f"{name} may no longer log in with {fingerprint}", {"user": name, "removed": fingerprint}
    )


def _row(key: PublicKey) -> tuple[str, ...]:
    return (
        key.fingerprint,
        key.algorithm,
        str(key.bits),
        _day(key.added_at) or "-",
        _day(key.last_used_at) or "never",
        key.comment,
    )


def _day(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d")


def _document(key: PublicKey) -> dict[str, Any]:
    return {
        "fingerprint": key.fingerprint,
        "type": key.algorithm,
        "bits": key.bits,
        "comment": key.comment,
        "added_at": None if key.added_at is None else key.added_at.isoformat(),
        "last_used_at": None if key.last_used_at is None else key.last_used_at.isoformat(),
    }
