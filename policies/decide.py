"""The decision: one pure function from a policy and a request to an answer with its rule. Default deny, deny first.

Who the subject is (that user and key belong together, that the user exists and is not disabled) is settled before.
"""

from collections.abc import Callable
from typing import Any

from policies.admission import DEFAULT_DENY, admission_refusal, refuse
from policies.creation import decide_create
from policies.effective_roles import EffectiveRoles
from policies.matching import first_match
from policies.model import Policy
from policies.outgoing import decide_egress_host
from policies.page import decide_page
from policies.ports import ANY_PORT, GATEWAY_HOST, LOOPBACK_HOSTS, PAGE_PORT
from policies.requests import (
    AgentForwardingRequest,
    CreateRequest,
    Decision,
    EgressHostRequest,
    ForwardRequest,
    LoginRequest,
    PageRequest,
    Request,
    ReverseForwardRequest,
    SessionRequest,
    SharedRequest,
    StreamlocalRequest,
    VariableRequest,
)
from policies.sharing import decide_shared
from policies.variables import is_refused_always, is_variable_name
from policies.wording import quote

_LONGEST_SOCKET_PATH = 107  # sun_path less its NUL (unix(7))


def decide(policy: Policy, request: Request) -> Decision:
    """Say whether a request is allowed, by which rule and why."""
    effective = policy.holders.effective_roles(request.subject.user, request.at)
    refusal = admission_refusal(policy, effective, request)
    if refusal is not None:
        return refusal
    decision: Decision = _DECIDERS[type(request)](policy, effective, request)
    return decision


def _login(_policy: Policy, effective: EffectiveRoles, _request: LoginRequest) -> Decision:
    names = ", ".join(held.name for held in effective.in_force)
    return _allow(
        effective.in_force[0].rule("hours" if effective.in_force[0].role.hours else "login"), f"holds {names}"
    )


def _session(_policy: Policy, effective: EffectiveRoles, request: SessionRequest) -> Decision:
    for held in effective.denying:
        if request.kind in held.role.deny.sessions:
            return refuse(held.rule("deny.sessions"), f"{request.kind} sessions are denied")
    for held in effective.in_force:
        if request.kind in held.role.sessions:
            return _allow(held.rule("sessions"), f"{request.kind} sessions are permitted")
    return _by_default(effective, f"no role permits {quote(request.kind)} sessions")


def _forward(policy: Policy, effective: EffectiveRoles, request: ForwardRequest) -> Decision:
    """Judge a direct-tcpip channel (RFC 4254 §7.2): the environment's loopback, or a host that a role names."""
    where = f"{quote(request.host)} port {request.port}"
    if request.port not in ANY_PORT:
        return refuse(DEFAULT_DENY, f"{request.port} is not a TCP port")
    if request.host.lower() == GATEWAY_HOST and request.port == PAGE_PORT:
        return decide_page(policy, effective, PageRequest(request.subject, request.at, "user"))
    denied, permitted = effective.destinations(request.host, policy.notebook_port)
    if (denying := denied.owner(request.port)) is not None:
        return refuse(denying.rule("deny.permit_open"), f"forwards to {where} are denied")
    if (permitting := permitted.owner(request.port)) is not None:
        return _allow(permitting.rule("permit_open"), f"forwards to {where} are permitted")
    if request.host in LOOPBACK_HOSTS:
        return _by_default(effective, f"no role permits forwards to {where}")
    hint = "; only localhost, 127.0.0.1 and ::1 mean your environment"
    return _by_default(effective, f"no role names {where}{hint}")


def _reverse_forward(_policy: Policy, effective: EffectiveRoles, request: ReverseForwardRequest) -> Decision:
    """Judge a tcpip-forward (RFC 4254 §7.1). Port 0, the server's choice, needs a role that permits any."""
    where = f"{quote(request.host)} port {request.port}"
    if request.host not in LOOPBACK_HOSTS:
        return refuse(DEFAULT_DENY, f"a reverse forward listens on localhost, never on {quote(request.host)}")
    if request.port and request.port not in ANY_PORT:
        return refuse(DEFAULT_DENY, f"{request.port} is not a TCP port")
    for held in effective.denying:
        denied = held.role.deny.permit_listen.loopback
        if request.port in denied or (request.port == 0 and denied):
            return refuse(held.rule("deny.permit_listen"), f"listening on {where} is denied")
    for held in effective.in_force:
        ports = held.role.permit_listen.loopback
        if request.port in ports or (request.port == 0 and ports == ANY_PORT):
            return _allow(held.rule("permit_listen"), f"listening on {where} is permitted")
    return _by_default(effective, f"no role permits listening on {where}")


def _streamlocal(_policy: Policy, effective: EffectiveRoles, request: StreamlocalRequest) -> Decision:
    """Judge a Unix socket inside the environment (direct-streamlocal@openssh.com, streamlocal-forward)."""
    path, option = request.path, "allow_stream_local_forwarding"
    parts = path.split("/")
    if not path.startswith("/") or not path.isprintable() or ".." in parts or len(path.encode()) > _LONGEST_SOCKET_PATH:
        return refuse(DEFAULT_DENY, f"{quote(path)} is not an absolute path of a socket")
    for held in effective.denying:
        if held.role.deny.allow_stream_local_forwarding:
            return refuse(held.rule(f"deny.{option}"), "forwards of Unix sockets are denied")
    wanted = {"yes", "remote"} if request.listen else {"yes", "local"}
    for held in effective.in_force:
        if held.role.allow_stream_local_forwarding in wanted:
            return _allow(held.rule(option), "forwards of Unix sockets are permitted")
    return _by_default(effective, "no role permits forwards of Unix sockets")


def _agent_forwarding(_policy: Policy, effective: EffectiveRoles, _request: AgentForwardingRequest) -> Decision:
    option = "allow_agent_forwarding"
    for held in effective.denying:
        if held.role.deny.allow_agent_forwarding:
            return refuse(held.rule(f"deny.{option}"), "agent forwarding is denied")
    for held in effective.in_force:
        if held.role.allow_agent_forwarding:
            return _allow(held.rule(option), "agent forwarding is permitted")
    return _by_default(effective, "no role permits agent forwarding")


def _variable(_policy: Policy, effective: EffectiveRoles, request: VariableRequest) -> Decision:
    name = request.name
    if not is_variable_name(name):
        return refuse(DEFAULT_DENY, f"{quote(name)} is not a variable name")
    if is_refused_always(name):
        return refuse(DEFAULT_DENY, f"{name} can load or redirect code and is never accepted")
    denied = first_match(effective.denying, lambda role: role.deny.accept_env, name)
    if denied is not None:
        return refuse(denied.rule("deny.accept_env"), f"setting {name} is denied")
    permitted = first_match(effective.in_force, lambda role: role.accept_env, name)
    if permitted is not None:
        return _allow(permitted.rule("accept_env"), f"setting {name} is permitted")
    return _by_default(effective, f"no role accepts the variable {name}")


def _allow(rule: str, reason: str) -> Decision:
    return Decision(allowed=True, rule=rule, reason=reason)


def _by_default(effective: EffectiveRoles, reason: str) -> Decision:
    """Refuse what no role permits; roles out of their hours are named, because the person may wonder."""
    if len(effective.held) == len(effective.in_force):
        return refuse(DEFAULT_DENY, reason)
    asleep = ", ".join(held.name for held in effective.held if held not in effective.in_force)
    return refuse(DEFAULT_DENY, f"{reason} (outside its hours: {asleep})")


_DECIDERS: dict[type[Any], Callable[[Policy, EffectiveRoles, Any], Decision]] = {
    LoginRequest: _login,
    SessionRequest: _session,
    ForwardRequest: _forward,
    ReverseForwardRequest: _reverse_forward,
    StreamlocalRequest: _streamlocal,
    AgentForwardingRequest: _agent_forwarding,
    VariableRequest: _variable,
    CreateRequest: decide_create,
    EgressHostRequest: decide_egress_host,
    SharedRequest: decide_shared,
    PageRequest: decide_page,
}
