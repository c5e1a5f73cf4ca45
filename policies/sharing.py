"""May this user's environments have a volume that several users share, to read it or to write to it."""

from policies.admission import DEFAULT_DENY, refuse
from policies.effective_roles import EffectiveRoles
from policies.matching import first_match, matches_any
from policies.model import Policy
from policies.requests import Decision, SharedRequest
from policies.shared import SharedVolume, strongest
from policies.wording import quote


def shared_named(effective: EffectiveRoles) -> tuple[SharedVolume, ...]:
    """Return the volumes that the roles name together, also those that one denies."""
    return strongest(volume for held in effective.held for volume in held.role.shared)


def shared_of(effective: EffectiveRoles) -> tuple[SharedVolume, ...]:
    """Return the volumes that the roles give together, without those that one denies."""
    named = shared_named(effective)
    return tuple(
        volume
        for volume in named
        if not any(matches_any(volume.name, held.role.deny.shared) for held in effective.denying)
    )


def decide_shared(_policy: Policy, effective: EffectiveRoles, request: SharedRequest) -> Decision:
    """Judge by every role held: hours do not matter, because environments outlast them."""
    what = f"{'writing to' if request.writes else 'reading'} the shared volume {quote(request.name)}"
    denying = first_match(effective.denying, lambda role: role.deny.shared, request.name)
    if denying is not None:
        return refuse(denying.rule("deny.shared"), f"the shared volume {quote(request.name)} is denied")
    given = [(held, volume) for held in effective.held for volume in held.role.shared if volume.name == request.name]
    for held, volume in given:
        if volume.is_writable or not request.writes:
            return Decision(True, held.rule(f"shared.{volume.name}"), f"{what} is permitted")
    if given:
        return refuse(given[0][0].rule(f"shared.{request.name}"), f"no role permits {what}, only reading it")
    return refuse(DEFAULT_DENY, f"no role permits {what}")
