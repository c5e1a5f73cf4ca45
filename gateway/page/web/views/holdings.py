"""GPUs, people and time."""

from starlette.responses import Response

from gateway.page.web.view import Asked, View

view = View()


@view.get("/gpus", level="auditor", nav="GPUs")
async def timeline(asked: Asked) -> Response:
    """Show who holds and held which GPU; what is held and idle is marked."""
    found = await asked.ask("holdings.timeline", days=asked.number("days", 1))
    return asked.page("holdings.html", found=found)
