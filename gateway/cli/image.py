"""`devgw image`: the images environments are made from."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.engines.interface import IMAGE_LABEL_PREFIX

if TYPE_CHECKING:
    from gateway.engines.interface import Image
    from gateway.images.build import BuiltImage

app = command_app(help="Build and list the images of environments.")

_HEADINGS = ("IMAGE", "PROFILE", "TORCH", "CUDA", "PYTHON", "DIGEST")
_STEP_NUMBER = re.compile(r"^Step \d+/\d+ : ")  # the classic builder's own count, which we show ourselves


@app.command()
def build(  # noqa: PLR0913, PLR0917 - typer reads one parameter for each flag
    ctx: typer.Context,
    profile: Annotated[
        str, typer.Option("--profile", help="cpu, or cuda; containers/image/profiles has them.")
    ] = "cpu",
    base: Annotated[
        str | None, typer.Option("--base", metavar="IMAGE", help="Base image; default: the profile's.")
    ] = None,
    torch: Annotated[
        str | None, typer.Option("--torch", metavar="VERSION", help="PyTorch; default: the profile's.")
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option("--extra", metavar="PKG", help="One more Python package. May be repeated.", show_default=False),
    ] = None,
    wheelhouse: Annotated[
        Path | None, typer.Option("--wheelhouse", metavar="DIR", help="Take Python packages from these wheels only.")
    ] = None,
    index_url: Annotated[
        str | None, typer.Option("--index-url", metavar="URL", help="Python index to take packages from, torch too.")
    ] = None,
    ca_bundle: Annotated[
        Path | None, typer.Option("--ca-bundle", metavar="FILE", help="PEM file to trust while building.")
    ] = None,
    keep_ca_bundle: Annotated[bool, typer.Option("--keep-ca-bundle", help="Trust it in the image too.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build even when such an image is there.")] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Build an image, unless one of the same content is there."""
    from gateway.images.build import ImageRequest, find_image_folder, plan_build

    request = ImageRequest(
        profile=profile,
        base=base,
        torch=torch,
        extra_packages=tuple(extra or ()),
        wheelhouse=wheelhouse,
        index_url=index_url,
        ca_bundle=ca_bundle,
        keep_ca_bundle=keep_ca_bundle,
        rebuild=rebuild,
    )
    folder = find_image_folder()
    plan = plan_build(request, folder, folder.parent / "runner")
    out = Output(output, quiet=quiet)
    with out.steps() as show:
        operations = invocation_of(ctx).app.administration.images
        built = operations.build(request, plan, lambda now: show(now.step, now.steps, _STEP_NUMBER.sub("", now.line)))
    _show_built(out, built, plan.alias)


@app.command("list")
def list_images(ctx: typer.Context, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """List the images that devgw built."""
    images = sorted(invocation_of(ctx).app.engine.images(), key=lambda image: image.reference)
    documents = [
        {"reference": image.reference, "digest": image.digest, "labels": _own_labels(image.labels)} for image in images
    ]
    out = Output(output, quiet=quiet)
    out.table(_HEADINGS, [_row(image) for image in images], {"images": documents})
    if not images:
        out.note("no image yet; 'devgw image build' makes one")


def _show_built(out: Output, built: "BuiltImage", alias: str) -> None:
    labels = _own_labels(built.labels)
    document: dict[str, Any] = {
        "image": {"reference": built.tag, "alias": alias, "is_new": built.is_new, "labels": labels}
    }
    outcome = "built" if built.is_new else "was there already"
    out.facts({"image": built.tag, "alias": alias, "outcome": outcome, **labels}, document)


def _row(image: "Image") -> tuple[str, ...]:
    labels = _own_labels(image.labels)
    known = tuple(labels.get(name, "") for name in ("profile", "torch", "cuda", "python"))
    return (image.reference, *known, image.digest.removeprefix("sha256:")[:12])


def _own_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return devgw's labels by their bare name, in order."""
    own = {key: value for key, value in sorted(labels.items()) if key.startswith(IMAGE_LABEL_PREFIX)}
    return {key.removeprefix(IMAGE_LABEL_PREFIX): value for key, value in own.items()}
