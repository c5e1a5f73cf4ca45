"""`devgw image`: the images environments are made from."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.image_arrival import import_image, pull
from gateway.cli.image_channels import promote, prune, rollback
from gateway.cli.image_contents import diff, scan
from gateway.cli.image_listing import list_images, own_labels, show
from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, ReasonOption, command_app
from gateway.cli.output import Form, Output

if TYPE_CHECKING:
    from gateway.operations.images import Built

app = command_app(help="The images of environments: what there is, what is inside, which one a channel names.")
app.command("list")(list_images)
app.command()(show)
app.command()(diff)
app.command()(scan)
app.command()(pull)
app.command("import")(import_image)
app.command()(promote)
app.command()(rollback)
app.command()(prune)
_STEP_NUMBER = re.compile(r"^Step \d+/\d+ : ")  # the classic builder's own count, which we show ourselves


@app.command()
def build(  # noqa: PLR0913, PLR0917 - typer reads one parameter for each flag
    ctx: typer.Context,
    profile: Annotated[str, typer.Option("--profile", help="cpu, cuda, cuda13, rocm, edge or serve.")] = "cpu",
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
    reason: ReasonOption = "",
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
        line = lambda now: show(now.step, now.steps, _STEP_NUMBER.sub("", now.line))  # noqa: E731 - one line of joining
        built = operations.build(request, plan, line, reason)
    _show_built(out, built, plan.alias)


def _show_built(out: Output, built: "Built", alias: str) -> None:
    image, labels = built.image, own_labels(built.image.labels)
    document: dict[str, Any] = {
        "image": {
            "reference": image.tag,
            "alias": alias,
            "is_new": image.is_new,
            "image_digest": built.digest,
            "is_in_channel": built.is_in_channel,
            "labels": labels,
        }
    }
    outcome = "built" if image.is_new else "was there already"
    out.facts({"image": image.tag, "alias": alias, "outcome": outcome, **labels}, document)
    if not built.is_in_channel:
        channel = alias.rpartition(":")[2]
        out.note(f"the channel {channel} stays as it is; 'devgw image promote {image.tag} --to {channel}' moves it")
