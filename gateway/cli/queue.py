"""`devgw queue`: who waits for a GPU, in the order in which they are served."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output

if TYPE_CHECKING:
    from gateway.gpus.waiting import Place

app = command_app()

_HEADINGS = ("HANDLE", "POSITION", "GPUS", "WAITING", "GPU-HOURS", "TURN")


@app.command()
def queue(ctx: typer.Context, output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """List who waits for a GPU, and for how long about."""
    now = datetime.now(UTC)
    places = invocation_of(ctx).app.waiting.places()
    out = Output(output, quiet=quiet)
    out.table(_HEADINGS, [_row(place, now) for place in places], {"queue": [_document(place, now) for place in places]})
    if not places:
        out.note("nobody waits for a GPU")


def _row(place: "Place", now: datetime) -> tuple[str, ...]:
    from gateway.cli.quantities import age_text
    from gateway.gpus.waiting import estimate_text

    document = _document(place, now)
    return (
        str(place.waiter.ref),
        str(place.position),
        place.waiter.gpu_request,
        age_text((now - place.waiter.asked_at).total_seconds()),
        f"{document['decayed_gpu_hours']:.1f}",
        estimate_text(place.turn_at, now) if place.turn_at else "-",
    )


def _document(place: "Place", now: datetime) -> dict[str, Any]:
    from gateway.store.shares import decayed_hours

    return {
        "handle": str(place.waiter.ref),
        "position": place.position,
        "gpu_request": place.waiter.gpu_request,
        "asked_at": place.waiter.asked_at.isoformat(),
        "decayed_gpu_hours": round(decayed_hours(place.waiter.share, now), 3),
        "turn_at": place.turn_at.isoformat() if place.turn_at else None,
    }
