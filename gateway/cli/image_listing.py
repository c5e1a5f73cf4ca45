"""`devgw image list|show`: which images there are, where they came from, who uses them, what a channel named before."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import ImageArgument, OutputOption, QuietOption
from gateway.cli.output import Form, Output
from gateway.engines.interface import IMAGE_LABEL_PREFIX

if TYPE_CHECKING:
    from gateway.app.composition import App
    from gateway.engines.image_store import StoredImage
    from gateway.images.channels import Channel
    from gateway.store.images import ChannelMove, ImageRecord

_HEADINGS = ("IMAGE", "PROFILE", "TORCH", "CUDA", "PYTHON", "DIGEST", "CHANNEL", "USED BY")


def list_images(ctx: typer.Context, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """List the images that devgw built or brought, and who uses them."""
    app = invocation_of(ctx).app
    records, users = app.image_table.all(), app.administration.pruning.users()
    channels = {channel.digest: channel.name for channel in app.channels.all()}
    images = [one for one in app.image_store.all() if one.digest in records or own_labels(one.labels)]
    named = sorted((name, one) for one in images for name in one.names)
    documents = [
        {
            "reference": name,
            "digest": one.digest,
            "labels": own_labels(one.labels),
            "channel": channels.get(one.digest),
            "used_by": users.get(one.digest, []),
        }
        for name, one in named
    ]
    rows = [_row(name, one, channels.get(one.digest, ""), users.get(one.digest, [])) for name, one in named]
    out = Output(output, quiet=quiet)
    out.table(_HEADINGS, rows, {"images": documents})
    if not images:
        out.note("no image yet; 'devgw image build' makes one")


def show(
    ctx: typer.Context,
    image: ImageArgument,
    sbom: Annotated[
        bool, typer.Option("--sbom", help="Write what is inside instead: its bill of materials, CycloneDX as JSON.")
    ] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Show where an image came from, who uses it, and for a channel what it named before."""
    app, out = invocation_of(ctx).app, Output(output, quiet=quiet)
    if sbom:
        with out.progress() as progress:
            progress("reading what is inside")
            text = app.administration.image_contents.sbom(image)
        out.text(f"{text}\n")
        return
    _show_image(out, app, image)


def own_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return devgw's labels by their bare name, in order."""
    own = {key: value for key, value in sorted(labels.items()) if key.startswith(IMAGE_LABEL_PREFIX)}
    return {key.removeprefix(IMAGE_LABEL_PREFIX): value for key, value in own.items()}


def _show_image(out: Output, app: "App", text: str) -> None:
    from gateway.images.references import channel_in

    digest = app.channels.choose(text).digest
    stored = next(one for one in app.image_store.all() if one.digest == digest)
    record = app.image_table.all().get(digest)
    users = app.administration.pruning.users(keep=2).get(digest, [])
    channel = app.channels.get(channel_in(text)) if channel_in(text) else None
    labels = own_labels(stored.labels)
    facts = {
        "image digest": digest,
        "names": ", ".join(stored.names),
        **_origin(record),
        **labels,
        "used by": "; ".join(users) or "nobody",
        **(_history(channel) if channel else {}),
    }
    document: dict[str, Any] = {
        "image": {
            "image_digest": digest,
            "names": list(stored.names),
            "size_bytes": stored.size_bytes,
            "labels": labels,
            "origin": _origin_document(record),
            "used_by": users,
        },
        "moves": [_move_document(move) for move in channel.moves] if channel else [],
    }
    out.facts(facts, document)


def _row(name: str, image: "StoredImage", channel: str, users: list[str]) -> tuple[str, ...]:
    from gateway.images.references import short

    labels = own_labels(image.labels)
    known = tuple(labels.get(label, "") for label in ("profile", "torch", "cuda", "python"))
    environments = [user.partition(",")[0] for user in users if ", which" in user]
    return (name, *known, short(image.digest), channel, ", ".join(dict.fromkeys(environments)))


def _origin(record: "ImageRecord | None") -> dict[str, str]:
    if record is None:
        return {"came": "before devgw wrote down where from"}
    why = f": {record.reason}" if record.reason else ""
    return {"came": f"{record.origin} from {record.source} at {record.at:%Y-%m-%d %H:%M} UTC by {record.by}{why}"}


def _origin_document(record: "ImageRecord | None") -> dict[str, str] | None:
    if record is None:
        return None
    return {
        "origin": record.origin,
        "source": record.source,
        "at": record.at.isoformat(),
        "by": record.by,
        "reason": record.reason,
    }


def _history(channel: "Channel") -> dict[str, str]:
    """Say what a channel named, the newest first; a number keeps the lines apart."""
    return {f"move {len(channel.moves) - age}": _words(move) for age, move in enumerate(reversed(channel.moves))}


def _words(move: "ChannelMove") -> str:
    from gateway.images.references import short

    why = f": {move.reason}" if move.reason else ""
    line = f"{short(move.digest)} {move.kind} at {move.at:%Y-%m-%d %H:%M} UTC by {move.by}{why}"
    if move.undone_at is None:
        return line
    undone = f": {move.undone_reason}" if move.undone_reason else ""
    return f"{line}; rolled back at {move.undone_at:%Y-%m-%d %H:%M} UTC by {move.undone_by}{undone}"


def _move_document(move: "ChannelMove") -> dict[str, str | None]:
    return {
        "image_digest": move.digest,
        "kind": move.kind,
        "at": move.at.isoformat(),
        "by": move.by,
        "reason": move.reason,
        "undone_at": move.undone_at.isoformat() if move.undone_at else None,
        "undone_by": move.undone_by or None,
        "undone_reason": move.undone_reason or None,
    }
