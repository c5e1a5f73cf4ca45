"""Who is connected, and who was."""

from starlette.responses import Response

from gateway.page.web.addresses import address
from gateway.page.web.view import Asked, View

view = View()


@view.get("/sessions", level="auditor", nav="Sessions")
async def live(asked: Asked) -> Response:
    """Show the connections of this moment."""
    search = asked.query("search")
    found = await asked.ask("sessions.live", search=search, page=asked.number("page", 1))
    paging = found | {"address": address("/sessions", search=search)}
    return asked.page("sessions.html", found=found, paging=paging, search=search)


@view.get("/sessions/past", level="auditor")
async def past(asked: Asked) -> Response:
    """Show connections that have ended, and why."""
    asked_for = {name: asked.query(name) for name in ("search", "user", "since", "until")}
    found = await asked.ask("sessions.past", page=asked.number("page", 1), **asked_for)
    paging = found | {"address": address("/sessions/past", **asked_for)}
    return asked.page("past_sessions.html", found=found, paging=paging, asked_for=asked_for)
