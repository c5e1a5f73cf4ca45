"""May an environment of this user connect to a host outside, by the name and port it asks for."""

from policies.admission import DEFAULT_DENY, refuse
from policies.effective_roles import EffectiveRoles
from policies.egress_hosts import normal_host
from policies.model import Policy
from policies.ports import ANY_PORT
from policies.requests import Decision, EgressHostRequest
from policies.wording import quote


def decide_egress_host(_policy: Policy, effective: EffectiveRoles, request: EgressHostRequest) -> Decision:
    """Judge by every role held: hours do not matter, because jobs outlast them."""
    host, where = normal_host(request.host), f"{quote(request.host)} port {request.port}"
    if host is None:
        return refuse(DEFAULT_DENY, f"{quote(request.host)} is not the name of a host")
    if request.port not in ANY_PORT:
        return refuse(DEFAULT_DENY, f"{request.port} is not a TCP port")
    return _denial(effective, host, request.port, where) or _permission(effective, host, request.port, where)


def _denial(effective: EffectiveRoles, host: str, port: int, where: str) -> Decision | None:
    for held in effective.denying:
        if held.role.deny.egress:
            return refuse(held.rule("deny.egress"), "connections to the outside are denied")
        if any(target.fits(host) and port in target.ports for target in held.role.deny.egress_hosts):
            return refuse(held.rule("deny.egress_hosts"), f"connections to {where} are denied")
    return None


def _permission(effective: EffectiveRoles, host: str, port: int, where: str) -> Decision:
    named = [(held, target) for held in effective.held for target in held.role.egress_hosts if target.fits(host)]
    for held, target in named:
        if port in target.ports:
            return Decision(True, held.rule("egress_hosts"), f"connections to {where} are permitted")
    others = f"; permitted there: {', '.join(str(target) for _, target in named)}" if named else ""
    return refuse(DEFAULT_DENY, f"no role permits connections to {where}{others}")
