"""Arguments and options that several commands share, with one name and one meaning everywhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.output import Form


def complete_handles(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the environments in the store to the shell; nothing where there is none to read."""
    from gateway.cli.invocation import Invocation
    from gateway.errors import DevgwError

    invocation = ctx.find_object(Invocation) or Invocation()
    try:
        handles = [str(environment.ref) for environment in invocation.app.table.all()]
    except DevgwError:
        return []
    return [handle for handle in handles if handle.startswith(incomplete)]


def complete_users(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the users who have an environment."""
    return sorted({handle.partition("+")[0] for handle in complete_handles(ctx, incomplete)})


def command_app(**settings: Any) -> typer.Typer:
    """Return an empty command file's `app`, with what holds for all of them."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, **settings)


Handle = Annotated[
    str,
    typer.Argument(
        metavar="HANDLE",
        help="The environment: alice, or alice+proj.",
        autocompletion=complete_handles,
        show_default=False,
    ),
]
UserArgument = Annotated[
    str, typer.Argument(metavar="USER", help="The user's name.", autocompletion=complete_users, show_default=False)
]
OutputOption = Annotated[Form, typer.Option("--output", "-o", help="How to write the result.", show_default=True)]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; lists show names only.")]
JournalOption = Annotated[
    Path | None,
    typer.Option("--journal", metavar="DIR", help="A copy of a journal's directory; default: this gateway's own."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to every question.")]
ImageArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE",
        help="cuda (a channel), cuda@sha256:DIGEST, a digest's first 12 digits, or a name of the engine's.",
        show_default=False,
    ),
]
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why, for the journal.", show_default=False)
]
NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Refuse, with exit code 3, instead of waiting for a GPU.")
]
PasswordStdinOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the notebook password from stdin instead of making one.")
]
