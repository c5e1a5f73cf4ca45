"""`devgw image pull|import`: images come from a registry or in an archive; no channel moves by it."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, ReasonOption
from gateway.cli.output import Form, Output
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.engines.interface import Image


def pull(
    ctx: typer.Context,
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="registry/name:tag or registry/name@sha256:DIGEST.")
    ],
    reason: ReasonOption = "",
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Bring an image from a registry."""
    out = Output(output, quiet=quiet)
    with out.progress() as progress:
        image = invocation_of(ctx).app.administration.images.pull(reference, reason, progress)
    _show_come(out, image, reference)


def import_image(
    ctx: typer.Context,
    archive: Annotated[str, typer.Argument(metavar="FILE|-", help="An archive of one image; - is stdin.")],
    reason: ReasonOption = "",
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Bring an image in an archive: of 'docker save', or with bubblewrap of a prepared root."""
    out = Output(output, quiet=quiet)
    with ExitStack() as stack:
        try:
            file = sys.stdin.buffer if archive == "-" else stack.enter_context(Path(archive).open("rb"))
        except OSError as exc:
            raise ConfigError("image.archive-unreadable", f"cannot read {archive}: {exc.strerror}") from exc
        progress = stack.enter_context(out.progress())
        image = invocation_of(ctx).app.administration.images.load(file, archive, reason, progress)
    _show_come(out, image, image.reference)


def _show_come(out: Output, image: "Image", name: str) -> None:
    from gateway.cli.image_listing import own_labels
    from gateway.images.references import short

    labels = own_labels(image.labels)
    document = {"image": {"reference": name, "image_digest": image.digest, "labels": labels}}
    out.facts({"image": name, "image digest": image.digest, **labels}, document)
    if "devgw-environment" not in labels:
        out.note(
            "it carries no label of devgw's environment package; "
            "environments start from it only if it keeps docs/reference/environment-contract.md"
        )
    out.note(f"no channel names it yet; 'devgw image promote {short(image.digest)} --to CHANNEL' puts it to use")
