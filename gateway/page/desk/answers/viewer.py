"""Who is looking, and whether the page that they ask for is theirs."""

from datetime import UTC, datetime
from typing import get_args

from gateway.errors import UsageError
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.site import Asker, Site
from policies.requests import PageLevel, PageRequest

answers = Answers()


@answers.to("viewer.enter")
def enter(site: Site, asker: Asker, level: PageLevel, address: str) -> str:
    """Return whose page the asker has, which must hold what is on `level`. A refusal is journaled.

    Raises: DeniedError `policy.denied`.
    """
    if level not in get_args(PageLevel):
        raise UsageError("page.bad-question", "there is no such page")
    request = PageRequest(asker.subject, datetime.now(UTC), level, "view", address[:200])
    if not site.policy.decide(request).allowed:
        site.gate.require(request, asker.actor, asker.environment)
    return asker.level
