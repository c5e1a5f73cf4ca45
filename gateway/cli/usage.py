"""`devgw usage`: GPU-hours leased and used, by user, environment or GPU."""

import csv
import io
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import QuietOption, command_app
from gateway.cli.output import Form, Output

if TYPE_CHECKING:
    from gateway.gpus.usage import Usage

app = command_app()

_SECONDS_AN_HOUR = 3600


class Grouping(StrEnum):
    """What a line of the account stands for."""

    USER = "user"
    ENVIRONMENT = "environment"
    GPU = "gpu"


class UsageForm(StrEnum):
    """How the account is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@app.command()
def usage(
    ctx: typer.Context,
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help="7d ago, or 2026-11-01, or 2026-11-01T08:30.")
    ] = "30d",
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Default: now.")] = None,
    by: Annotated[Grouping, typer.Option("--by", help="What a line stands for.")] = Grouping.USER,
    output: Annotated[UsageForm, typer.Option("--output", "-o", help="How to write the result.")] = UsageForm.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Count GPU-hours leased and used."""
    from gateway.config.moments import parse_moment
    from gateway.gpus.usage import Period
    from gateway.operations.gpus import count_usage

    now = datetime.now(UTC)
    begin = parse_moment(since, "--since", now)
    end = now if until is None else parse_moment(until, "--until", now)
    app = invocation_of(ctx).app
    counted = count_usage(app.lease_table, app.usage_table, Period(begin, end, now), by.value)
    lines = [_document(line) for line in counted]
    if output is UsageForm.CSV:
        Output().text(_csv(by, lines))
        return
    out = Output(Form(output.value), quiet=quiet)
    document = {"since": begin.isoformat(), "until": end.isoformat(), "by": by.value, "usage": lines}
    headings = (by.value.upper(), "LEASES", "GPU-HOURS LEASED", "USED", "SHARE", "MEMORY PEAK")
    out.table(headings, [_row(line) for line in lines], document)
    if not lines:
        out.note("nobody held a GPU in that time")


def _document(line: "Usage") -> dict[str, Any]:
    observed, used = line.observed_seconds, line.used_seconds
    return {
        "key": line.key,
        "leases": line.leases,
        "leased_gpu_hours": _hours(line.leased_seconds),
        "used_gpu_hours": None if used is None else _hours(used),
        "observed_gpu_hours": _hours(observed),
        "memory_peak_bytes": line.memory_peak_bytes,
    }


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    from gateway.cli.quantities import size_text

    used, observed = line["used_gpu_hours"], line["observed_gpu_hours"]
    return (
        line["key"],
        str(line["leases"]),
        f"{line['leased_gpu_hours']:.2f}",
        "-" if used is None else f"{used:.2f}",
        "-" if used is None or not observed else f"{100 * used / observed:.0f}%",
        "-" if line["memory_peak_bytes"] is None else size_text(line["memory_peak_bytes"]),
    )


def _csv(by: Grouping, lines: list[dict[str, Any]]) -> str:
    written = io.StringIO()
    names = ("leases", "leased_gpu_hours", "used_gpu_hours", "observed_gpu_hours", "memory_peak_bytes")
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow((by.value, *names))
    rows.writerows((line["key"], *("" if line[name] is None else line[name] for name in names)) for line in lines)
    return written.getvalue()


def _hours(seconds: float) -> float:
    return round(seconds / _SECONDS_AN_HOUR, 4)
