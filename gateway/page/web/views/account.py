"""What is a user's own beside environments: keys, hours, what they may do, how to connect."""

from starlette.responses import Response

from gateway.page.web.view import Asked, View

view = View()
_DAYS = (7, 30, 90, 365)


@view.get("/connect", nav="Connect")
async def connect(asked: Asked) -> Response:
    """Show the lines that lead to each environment."""
    return asked.page("connect.html", found=await asked.ask("account.connect"))


@view.get("/account", nav="Keys and hours")
async def account(asked: Asked) -> Response:
    """Show keys, and hours of GPUs."""
    days = asked.number("days", 30)
    days = days if days in _DAYS else 30
    keys, hours = await asked.ask("account.keys"), await asked.ask("account.hours", days=days)
    return asked.page("account.html", keys=keys, hours=hours, days=days, choices=_DAYS)


@view.get("/may", nav="What I may do")
async def may(asked: Asked) -> Response:
    """Show what the policy lets the viewer do, with its rules; also for a question of their own."""
    question = asked.query("question").strip()
    return asked.page("may.html", question=question, found=await asked.ask("account.may", question=question))
