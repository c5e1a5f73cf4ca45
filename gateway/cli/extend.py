"""`devgw extend`: an environment keeps its GPUs for longer."""

from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import Handle, OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.errors import UsageError
from gateway.model import EnvironmentRef

app = command_app()


@app.command()
def extend(
    ctx: typer.Context,
    handle: Handle,
    duration: Annotated[str, typer.Argument(metavar="DURATION", help="By how long: 90m, 4h, 2d.", show_default=False)],
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Move the end of an environment's GPU lease, within what the policy allows."""
    ref = EnvironmentRef.parse(handle)
    seconds = parse_positive_duration(duration)
    end = invocation_of(ctx).app.administration.gpus.extend(ref, seconds)
    document = {"handle": str(ref), "lease_ends_at": end.isoformat()}
    Output(output, quiet=quiet).done(f"the lease of {ref} ends at {end:%Y-%m-%d %H:%M} UTC", document)


def parse_positive_duration(text: str) -> int:
    """Return seconds. Raises: UsageError `duration.bad`."""
    from gateway.config import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as exc:
        raise UsageError("duration.bad", str(exc), "for example 4h") from exc
    if seconds <= 0:
        raise UsageError("duration.bad", f"{text} is no time", "for example 4h")
    return seconds
