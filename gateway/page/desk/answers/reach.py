"""Who can do something, what one person can do, and the review of everybody's access."""

from datetime import UTC, datetime
from typing import Any

from gateway.audit.display import printable
from gateway.audit.review import Person, access_of
from gateway.audit.review import review as review_people
from gateway.errors import UsageError
from gateway.model import User, UserName
from gateway.operations.reviewing import people_of
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.paging import paged
from gateway.page.desk.site import Asker, Site
from gateway.readings import OfEach, Shared
from policies.reach import Reach, who_can

answers = Answers()
_PEOPLE = 500
"""Of one piece."""
_FINDINGS = 2000
_REVIEW_SECONDS = 10.0


@answers.to("reach.who", level="auditor")
def who(site: Site, _asker: Asker, question: str, page: int = 1) -> dict[str, Any]:
    """Return everybody whom the policy in force allows what is asked, and how they come by it."""
    keys = site.users.keys_by_user()
    policy, now = site.policy.policy, datetime.now(UTC)
    users = sorted({*keys, *policy.holders.users()})
    try:
        found = [one for one in who_can(policy, users, question, now) if one.decision.allowed]
    except ValueError as exc:
        hint = "for example: login, shell, gpu, dataset imagenet, forward localhost:6006"
        raise UsageError("question.bad", printable(" ".join(str(exc).split())), hint) from exc
    shut = {one.name for one in site.users.all() if one.disabled}

    def described(one: Reach) -> dict[str, Any]:
        return {
            "user": printable(one.user),
            "disabled": one.user in shut,
            "known": one.user in keys,
            "rule": printable(one.decision.rule),
            "grants": [_grant(*grant) for grant in one.grants],
            "keys": len(keys.get(one.user, ())),
        }

    return paged(found, page, described)


@answers.to("reach.person", level="auditor")
def person(site: Site, _asker: Asker, user: str) -> dict[str, Any]:
    """Return all that one person may do."""
    now = datetime.now(UTC)
    known, keys = site.users.account(user)
    whose = Person(known or User(UserName(user), 0, now), tuple(keys))
    access = access_of(site.policy.policy, whose, sorted(site.settings.datasets), now)
    shown: dict[str, Any] = _shown(access.as_dict())
    return shown | {"known": known is not None}


@answers.to("reach.review", level="auditor")
def review(site: Site, _asker: Asker, piece: int = 0) -> dict[str, Any]:
    """Review everybody's access as `devgw audit review` does; people come in pieces, the findings with the first."""
    made = _REVIEW.of(site).get()
    people = made["people"][piece * _PEOPLE : (piece + 1) * _PEOPLE]
    is_last = (piece + 1) * _PEOPLE >= len(made["people"])
    findings = [] if piece else made["findings"][:_FINDINGS]
    counted = {"people": len(made["people"]), "findings": len(made["findings"])}
    shown = {"at": made["at"], "policy": made["policy"], "people": people, "findings": findings, "counted": counted}
    return {**_shown(shown), "next": None if is_last else piece + 1}


def _review(site: Site) -> dict[str, Any]:
    people = people_of(site.users, site.settings.all_journals)
    datasets = sorted(site.settings.datasets)
    return review_people(site.policy.policy, people, datasets=datasets, at=datetime.now(UTC)).as_dict()


_REVIEW: OfEach[Site, Shared[dict[str, Any]]] = OfEach(lambda site: Shared(lambda: _review(site), _REVIEW_SECONDS))


def _grant(role: str, grant: str, until: datetime | None) -> dict[str, Any]:
    return {"role": printable(role), "grant": printable(grant), "until": until.isoformat() if until else None}


def _shown(value: Any) -> Any:
    """Return the same with every text safe to be shown."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {name: _shown(one) for name, one in value.items()}
    return [_shown(one) for one in value] if isinstance(value, list) else value
