"""`devgw doctor`: what is wrong with this host, or with one environment, and what to do about it."""

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app, complete_handles
from gateway.cli.output import Form, Output
from gateway.model import EnvironmentRef

if TYPE_CHECKING:
    from gateway.doctor.finding import Finding

app = command_app()


@app.command()
def doctor(
    ctx: typer.Context,
    handle: Annotated[
        str | None,
        typer.Argument(metavar="[HANDLE]", help="Look inside this environment too.", autocompletion=complete_handles),
    ] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Check this host, or this host and one environment."""
    gateway = invocation_of(ctx).app
    environment = None if handle is None else gateway.table.require(EnvironmentRef.parse(handle))
    operations = gateway.administration.diagnoses
    report = operations.host() if environment is None else operations.environment(environment)
    document = {**report.as_dict(), "environment": None if environment is None else str(environment.ref)}
    shown = [finding for finding in report.findings if finding.fix or not quiet]
    out = Output(output)
    out.done("\n".join(line for finding in shown for line in _lines(finding)) or "all is well", document)
    counts = report.counts()
    Output(output, quiet=quiet).note(", ".join(f"{number} {level}" for level, number in counts.items() if number))
    raise typer.Exit(report.exit_code)


def _lines(finding: "Finding") -> list[str]:
    """Write a finding as one line, and its fix beneath."""
    first = f"{finding.level.value:8} {finding.check:24} {finding.message}"
    return [first, f"{'':8} {'':24} fix: {finding.fix}"] if finding.fix else [first]
