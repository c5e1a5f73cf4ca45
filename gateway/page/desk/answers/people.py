"""Users, for administrators: who is known, shut one out, let them in again."""

from collections import Counter
from typing import Any

from gateway.model import parse_user_name
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.site import Asker, Site, acts_of
from gateway.readings import shared_of

answers = Answers()
_ROWS = 100


def _count(site: Site) -> tuple[Counter[str], Counter[str]]:
    """Count keys and environments of each user."""
    keys = Counter({user: len(several) for user, several in site.users.keys_by_user().items()})
    return keys, Counter(str(one.ref.user) for one in site.table.all())


_counts = shared_of(_count)


@answers.to("people.list", level="admin")
def known(site: Site, asker: Asker, search: str = "", page: int = 1) -> dict[str, Any]:  # noqa: ARG001 - both are given
    """Return a page of users whose name has some text."""
    keys, environments = _counts.of(site).get()
    found = [user for user in site.users.all() if search in user.name]
    pages = max(1, -(-len(found) // _ROWS))
    page = min(max(1, page), pages)
    return {
        "page": page,
        "pages": pages,
        "count": len(found),
        "people": [
            {
                "name": user.name,
                "disabled": user.disabled,
                "created_at": user.created_at.isoformat(),
                "keys": keys[user.name],
                "environments": environments[user.name],
            }
            for user in found[(page - 1) * _ROWS : page * _ROWS]
        ],
    }


@answers.to("people.disable", level="admin", journaled=True)
def disable(site: Site, asker: Asker, user: str) -> None:
    """Shut a user out."""
    acts_of(site, asker).users.disable(parse_user_name(user))


@answers.to("people.enable", level="admin", journaled=True)
def enable(site: Site, asker: Asker, user: str) -> None:
    """Let a user in again."""
    acts_of(site, asker).users.enable(parse_user_name(user))
