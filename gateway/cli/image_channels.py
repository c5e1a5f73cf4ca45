"""`devgw image promote|rollback|prune`: what a channel names moves forward and back, and old images go."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import ImageArgument, OutputOption, QuietOption, ReasonOption
from gateway.cli.output import Form, Output
from gateway.errors import Exit, UsageError

if TYPE_CHECKING:
    from gateway.operations.channels import ChannelOperations, Move, Restarted
    from gateway.operations.image_pruning import Fate

RestartOption = Annotated[
    bool, typer.Option("--restart", help="Restart those that run another image, at once; files and GPUs stay.")
]
AfterWarningOption = Annotated[
    bool, typer.Option("--after-warning", help="With --restart: warn their users first; the gateway restarts them.")
]
ChannelArgument = Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel: cuda, or another name.")]


def promote(
    ctx: typer.Context,
    image: ImageArgument,
    to: Annotated[str, typer.Option("--to", metavar="CHANNEL", help="The channel; a new name makes one.")],
    reason: ReasonOption = "",
    restart: RestartOption = False,
    after_warning: AfterWarningOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Let a channel name an image: environments of it start from that one."""
    _require_restart(restart=restart, after_warning=after_warning)
    out = Output(output, quiet=quiet)
    operations = invocation_of(ctx).app.administration.channels
    move = operations.promote(image, to, reason)
    _follow_up(out, operations, move, restart=restart, after_warning=after_warning)


def rollback(
    ctx: typer.Context,
    channel: ChannelArgument,
    reason: ReasonOption = "",
    restart: RestartOption = False,
    after_warning: AfterWarningOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Let a channel name the image before again."""
    _require_restart(restart=restart, after_warning=after_warning)
    out = Output(output, quiet=quiet)
    operations = invocation_of(ctx).app.administration.channels
    move = operations.rollback(channel, reason)
    _follow_up(out, operations, move, restart=restart, after_warning=after_warning)


def prune(
    ctx: typer.Context,
    image: Annotated[str | None, typer.Argument(metavar="[IMAGE]", help="Only this one.", show_default=False)] = None,
    keep: Annotated[
        int, typer.Option("--keep", metavar="N", min=1, help="Images of each channel that stay, the last ones.")
    ] = 2,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="DURATION", help="Leave images that came later than this ago.")
    ] = "1d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and why the rest stays.")] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Remove images that no channel, rollback or environment uses."""
    from gateway.cli.extend import parse_positive_duration

    out = Output(output, quiet=quiet)
    operations = invocation_of(ctx).app.administration.pruning
    if image is not None:
        if dry_run:
            raise UsageError(
                "image.prune-usage", "--dry-run is for pruning all", "'devgw image show' says who uses one"
            )
        gone = operations.remove(image)
        out.done(f"{gone.digest[:19]} is gone", {"pruned": [gone.digest]})
        return
    fates = operations.plan(keep, parse_positive_duration(older_than))
    done = fates if dry_run else operations.prune(fates)
    _show_fates(out, done, fates, dry_run=dry_run)
    if any(fate.error for fate in done):
        raise typer.Exit(Exit.FAILURE)


def _require_restart(*, restart: bool, after_warning: bool) -> None:
    if after_warning and not restart:
        raise UsageError("image.restart-usage", "--after-warning says how to --restart", "add --restart")


def _follow_up(
    out: Output, operations: "ChannelOperations", move: "Move", *, restart: bool, after_warning: bool
) -> None:
    """Restart as asked, and say all of it."""
    from gateway.images.references import short

    restarted: list[Restarted] = []
    at = None
    if restart and after_warning and move.behind:
        at = operations.restart_after_warning(move)
    elif restart:
        with out.progress() as progress:
            restarted = list(operations.restart(move, progress))
    verb = "names" if move.is_new else "names already"
    before = f"; before it {short(move.previous)}" if move.is_new and move.previous else ""
    document: dict[str, Any] = {
        "channel": move.channel,
        "image_digest": move.digest,
        "previous": move.previous or None,
        "is_new": move.is_new,
        "behind": [str(ref) for ref in move.behind],
        "restart_at": at.isoformat() if at else None,
        "restarted": [{"handle": str(one.ref), "error": one.error or None} for one in restarted],
    }
    out.done(f"{move.channel} {verb} {short(move.digest)}{before}", document)
    if at is not None:
        out.note(f"the gateway warns {_handles(move)} and restarts them from {at:%H:%M} UTC on; it must be serving")
    elif move.behind and not restart:
        out.note(f"{_handles(move)} run another image until their next start; --restart brings them along")
    _show_restarts(out, move, restarted)


def _show_restarts(out: Output, move: "Move", restarted: "list[Restarted]") -> None:
    failed = [one for one in restarted if one.error]
    for one in restarted:
        out.note(f"{one.ref} did not start: {one.error}" if one.error else f"{one.ref} runs the channel's image")
    if failed:
        out.note(f"'devgw image rollback {move.channel} --restart' goes back to the image before")
        raise typer.Exit(Exit.FAILURE)


def _handles(move: "Move") -> str:
    return ", ".join(str(ref) for ref in move.behind)


def _show_fates(out: Output, done: "list[Fate]", fates: "list[Fate]", *, dry_run: bool) -> None:
    shown = fates if dry_run else done
    words = "would go" if dry_run else "gone"
    rows = [(fate.image.digest[:19], ", ".join(fate.image.names) or "-", _word_of(fate, words)) for fate in shown]
    documents = [
        {
            "image_digest": fate.image.digest,
            "names": list(fate.image.names),
            "size_bytes": fate.image.size_bytes,
            "goes": fate.goes,
            "kept_by": list(fate.kept_by),
            "error": fate.error or None,
        }
        for fate in shown
    ]
    out.table(("IMAGE DIGEST", "NAMES", "FATE"), rows, {"images": documents, "dry_run": dry_run})
    if not any(fate.goes for fate in fates):
        out.note("nothing is there that nothing uses")


def _word_of(fate: "Fate", words: str) -> str:
    if fate.error:
        return f"could not go: {fate.error}"
    return words if fate.goes else f"stays: {'; '.join(fate.kept_by)}"
