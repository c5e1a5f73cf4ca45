"""`devgw host-key`: the gateway's host key, and its rotation in two steps. Needs no engine."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output

if TYPE_CHECKING:
    from gateway.operations.host_keys import HostKey

app = command_app(help="Show and rotate the gateway's host key.")


@app.callback()
def host_key() -> None:
    """Show and rotate the gateway's host key."""


@app.command("list")
def list_host_keys(ctx: typer.Context, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """List the key in use, and the next one where it is announced."""
    keys = invocation_of(ctx).app.administration.host_keys.all()
    rows = [("next" if key.is_next else "in use", key.fingerprint) for key in keys]
    Output(output, quiet=quiet).table(("STATE", "FINGERPRINT"), rows, {"host_keys": [_document(key) for key in keys]})


@app.command()
def rotate(
    ctx: typer.Context,
    finish: Annotated[
        bool, typer.Option("--finish", help="Put the announced key into use; the old one is no longer shown.")
    ] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Announce a next host key, which clients learn when they connect; with --finish, use it."""
    operations = invocation_of(ctx).app.administration.host_keys
    out = Output(output, quiet=quiet)
    if finish:
        key = operations.finish()
        out.done(f"in use: {key.fingerprint}", {"host_key": _document(key)})
        out.note("clients that did not learn it are warned: tell their users this fingerprint")
        return
    key = operations.announce()
    out.done(f"announced: {key.fingerprint}", {"host_key": _document(key)})
    out.note("once your users have connected: 'devgw host-key rotate --finish'")


def _document(key: "HostKey") -> dict[str, Any]:
    return {"fingerprint": key.fingerprint, "line": key.line, "state": "next" if key.is_next else "in-use"}
