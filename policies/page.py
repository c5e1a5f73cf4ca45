"""The gateway's page: which of its levels a user has, and whether an act on it is theirs to do."""

from policies.admission import DEFAULT_DENY, refuse
from policies.effective_roles import EffectiveRoles, HeldRole
from policies.model import Policy
from policies.ports import GATEWAY_HOST, PAGE_PORT
from policies.requests import Decision, PageLevel, PageRequest
from policies.role import Role

LEVELS: tuple[PageLevel, ...] = ("none", "user", "auditor", "admin")
"""Each sees and may do what those before it may."""


def level_of_role(role: Role) -> PageLevel:
    """Return what one role gives; without a word of its own, a user's page to whom it lets open sessions."""
    given: PageLevel = role.page if "page" in role.model_fields_set or role.sessions else "none"
    permitted = PAGE_PORT in role.permit_open.host_ports(GATEWAY_HOST)
    return "user" if permitted and given == "none" else given


def level_held(effective: EffectiveRoles) -> tuple[PageLevel, HeldRole | None]:
    """Return the highest level of the roles in force, and the first role that gives it."""
    best: tuple[PageLevel, HeldRole | None] = ("none", None)
    for held in effective.in_force:
        level = level_of_role(held.role)
        if LEVELS.index(level) > LEVELS.index(best[0]):
            best = (level, held)
    return best


def decide_page(_policy: Policy, effective: EffectiveRoles, request: PageRequest) -> Decision:
    """Say whether the page, or an act on it, is open to a user."""
    for denying in effective.denying:
        if PAGE_PORT in denying.role.deny.permit_open.host_ports(GATEWAY_HOST):
            return refuse(denying.rule("deny.permit_open"), f"the page is denied ({GATEWAY_HOST} port {PAGE_PORT})")
    level, held = level_held(effective)
    if held is None or LEVELS.index(level) < LEVELS.index(request.level):
        return refuse(DEFAULT_DENY, f"no role gives the page of {whose(request.level)}")
    return Decision(allowed=True, rule=held.rule("page"), reason=f"has the page of {whose(level)}")


def whose(level: PageLevel) -> str:
    """Say whose page a level is."""
    return {"none": "nobody", "user": "a user", "auditor": "an auditor", "admin": "an administrator"}[level]
