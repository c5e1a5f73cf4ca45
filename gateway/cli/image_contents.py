"""`devgw image diff|scan`: what is inside images, compared, and judged by a scanner that this host has."""

from enum import StrEnum
from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import ImageArgument, OutputOption, QuietOption
from gateway.cli.output import Form, Output
from gateway.errors import Exit


class Severity(StrEnum):
    """How bad a fault is, as `--fail-on` names it."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


def diff(
    ctx: typer.Context,
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="An image.", show_default=False)],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The image to compare with it.", show_default=False)],
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Show which packages differ between two images."""
    out = Output(output, quiet=quiet)
    with out.progress() as progress:
        progress("reading what is inside")
        found = invocation_of(ctx).app.administration.image_contents.diff(before, after)
    rows = [(one.name, one.kind, one.before or "-", one.after or "-") for one in found]
    documents = [
        {"name": one.name, "kind": one.kind, "before": one.before or None, "after": one.after or None} for one in found
    ]
    out.table(("PACKAGE", "KIND", "BEFORE", "AFTER"), rows, {"differences": documents})
    if not found:
        out.note("the packages of both are the same")


def scan(
    ctx: typer.Context,
    image: ImageArgument,
    fail_on: Annotated[
        Severity | None, typer.Option("--fail-on", help="Exit with 1 for one as bad or worse.", show_default=False)
    ] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Look for known vulnerabilities, with trivy or grype where this host has one."""
    out = Output(output, quiet=quiet)
    with out.progress() as progress:
        progress("reading what is inside, and asking the scanner")
        report = invocation_of(ctx).app.administration.image_contents.scan(image)
    rows = [(one.id, one.severity, one.package, one.version, one.fixed_in or "-") for one in report.found]
    documents = [
        {
            "id": one.id,
            "severity": one.severity,
            "package": one.package,
            "version": one.version,
            "fixed_in": one.fixed_in or None,
        }
        for one in report.found
    ]
    headings = ("ID", "SEVERITY", "PACKAGE", "VERSION", "FIXED IN")
    out.table(headings, rows, {"scanner": report.scanner, "vulnerabilities": documents})
    out.note(f"{report.scanner} judged by the database that it has here")
    if fail_on is not None and report.at_least(fail_on.value):
        raise typer.Exit(Exit.FAILURE)
