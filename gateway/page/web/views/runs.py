"""A user's runs of the training runner: how far, how well, how safe."""

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from gateway.page.web.view import Asked, View

view = View()
_WIDTH, _HEIGHT = 300.0, 80.0


@view.get("/runs", nav="Runs")
async def runs(asked: Asked) -> Response:
    """Show every run, the one that wrote last first."""
    found = await asked.ask("runs.mine")
    for run in found:
        run["curves"] = curves(run["train"], run["evaluated"])
    return asked.page("runs_part.html" if asked.is_part else "runs.html", runs=found)


def curves(*series: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return several series of (step, loss) as points of one picture, with its least and greatest numbers."""
    points = [point for one in series for point in one]
    if not points:
        return {"lines": [], "least": None, "most": None, "first": 0, "last": 0}
    steps, losses = [point[0] for point in points], [point[1] for point in points]
    least, most, first, last = min(losses), max(losses), min(steps), max(steps)
    lines = [
        " ".join(
            f"{_WIDTH * (step - first) / ((last - first) or 1):.1f},"
            f"{_HEIGHT - 4 - (_HEIGHT - 8) * (loss - least) / ((most - least) or 1):.1f}"
            for step, loss in one
        )
        for one in series
    ]
    return {"lines": lines, "least": least, "most": most, "first": first, "last": last}
