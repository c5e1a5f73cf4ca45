"""A user's own environments, and what they may do to them."""

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from gateway.page.web.view import Asked, View

view = View()


@view.get("/", nav="Environments")
async def mine(asked: Asked) -> Response:
    """Show the viewer's environments."""
    environments = await asked.ask("environments.mine")
    for one in environments:
        most = max(one["memory_peaks"], default=0) or 1
        one["memory_bars"] = [peak / most for peak in one["memory_peaks"]]
        one["processor_graph"] = _graph(one["processors_by_hour"], one["cpus"])
        one["memory_graph"] = _graph(one["memory_by_hour"], one["memory_bytes"])
    return asked.page("environments.html", environments=environments)


def _graph(values: Sequence[float | None], limit: float) -> dict[str, Any] | None:
    """Return bars as shares of the limit, with the most and the last; None where nobody looked."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    bars = [None if value is None else min(1.0, value / limit) for value in values]
    return {"bars": bars, "most": max(known), "last": known[-1]}


@view.post("/environments/{name}/start")
async def start(asked: Asked) -> Response:
    """Start one."""
    await asked.ask("environments.start", name=asked.path("name"))
    return asked.done("/", f"{asked.path('name')} runs.")


@view.post("/environments/{name}/stop")
async def stop(asked: Asked) -> Response:
    """Stop one."""
    await asked.ask("environments.stop", name=asked.path("name"))
    return asked.done("/", f"{asked.path('name')} is stopped; its files stay, its GPUs are free.")


@view.post("/environments/{name}/restart")
async def restart(asked: Asked) -> Response:
    """Stop one and start it."""
    await asked.ask("environments.restart", name=asked.path("name"))
    return asked.done("/", f"{asked.path('name')} runs again.")


@view.post("/environments/{name}/extend")
async def extend(asked: Asked) -> Response:
    """Keep its GPUs for longer."""
    hours = asked.field("hours")
    seconds = int(hours) * 3600 if hours.isascii() and hours.isdecimal() and len(hours) < 5 else 0
    end = await asked.ask("environments.extend", name=asked.path("name"), seconds=seconds)
    return asked.done("/", f"The GPUs of {asked.path('name')} are yours until {end[:16].replace('T', ' ')} UTC.")


@view.post("/environments/{name}/password")
async def password(asked: Asked) -> Response:
    """Give its notebook another password, shown on this page alone."""
    made = await asked.ask("environments.password", name=asked.path("name"))
    return asked.page("password.html", name=asked.path("name"), password=made)
