"""Users, for administrators."""

from urllib.parse import urlencode

from starlette.responses import Response

from gateway.page.web.view import Asked, View

view = View()


@view.get("/people", level="admin", nav="People")
async def people(asked: Asked) -> Response:
    """Show who is known."""
    search = asked.query("search")
    found = await asked.ask("people.list", search=search, page=asked.number("page", 1))
    address = f"/people?{urlencode({'search': search})}&page="
    return asked.page("people.html", search=search, found=found, paging=found | {"address": address})


@view.post("/people/{user}/disable", level="admin")
async def disable(asked: Asked) -> Response:
    """Shut one out."""
    await asked.ask("people.disable", user=asked.path("user"))
    return asked.done("/people", f"{asked.path('user')} is shut out; their connections end.")


@view.post("/people/{user}/enable", level="admin")
async def enable(asked: Asked) -> Response:
    """Let one in again."""
    await asked.ask("people.enable", user=asked.path("user"))
    return asked.done("/people", f"{asked.path('user')} may log in again.")
