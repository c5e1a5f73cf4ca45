"""Who can do something, what one person can do, and the access review."""

from typing import Any

from starlette.responses import Response

from gateway.page.web.addresses import address
from gateway.page.web.view import Asked, View

view = View()


@view.get("/who-can", level="auditor", nav="Who can")
async def who_can(asked: Asked) -> Response:
    """Answer both ways: who may do this, and what may this person do."""
    question, user = asked.query("question").strip(), asked.query("user").strip()
    found = person = None
    if user:
        person = await asked.ask("reach.person", user=user)
    elif question:
        found = await asked.ask("reach.who", question=question, page=asked.number("page", 1))
    paging = (found or {}) | {"address": address("/who-can", question=question)}
    return asked.page("who_can.html", question=question, user=user, found=found, person=person, paging=paging)


@view.get("/review", level="auditor", nav="Review")
async def review(asked: Asked) -> Response:
    """Show everybody's access, to be printed and signed."""
    made = await asked.ask("reach.review")
    people: list[Any] = made["people"]
    following = made["next"]
    while following is not None:
        more = await asked.ask("reach.review", piece=following)
        people += more["people"]
        following = more["next"]
    return asked.page("review.html", made=made, people=people, proof=await asked.ask("journal.proof"))
