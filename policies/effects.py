"""What a policy amounts to for one user, in comparable form: names, ports and numbers."""

import math
from dataclasses import dataclass, field

from policies.effective_roles import EffectiveRoles, HeldRole, Holding
from policies.keys import SAFE_KEY_TYPES
from policies.limits import hosts_of, limits_held
from policies.model import Policy
from policies.page import LEVELS, level_of_role, whose
from policies.ports import GATEWAY_HOST, PAGE_PORT, Ports
from policies.quantities import show_duration, show_size

SPANS = frozenset({"lifetime", "lease", "idle time"})
_LOOPBACK = "localhost"


@dataclass(frozen=True, slots=True)
class Effects:
    """Permissions one by one, restrictions one by one; in `ports` and `numbers` more is more freedom."""

    names: frozenset[str] = frozenset()
    restrictions: frozenset[str] = frozenset()
    ports: dict[str, Ports] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


def effects_of(policy: Policy, user: str) -> Effects:
    """Return what a user may do in total, at whatever time; when is one of the names."""
    holdings = policy.holders.holdings(user)
    held = tuple({holding.held.name: holding.held for holding in holdings}.values())
    effective = EffectiveRoles(held, held)
    if not held or effective.login_denial is not None:
        return Effects()
    names = {f"be here as {one.held.name}{_span(one)}" for one in holdings}
    for role in held:
        names |= _permissions(role)
    denied = {name for role in effective.denying for name in _denied(role)}
    restrictions = frozenset(_restrictions(effective) | _denials(effective))
    return Effects(frozenset(names - denied), restrictions, _ports(policy, effective), _numbers(effective))


def show_number(name: str, value: float) -> str:
    """Write a number in its unit; infinity is no limit."""
    if math.isinf(value):
        return "no limit"
    if name in {"memory", "disk"}:
        return show_size(int(value))
    if name in SPANS:
        return show_duration(int(value))
    return f"{value:g}"


def _span(holding: Holding) -> str:
    parts = [
        f" from {holding.begins.isoformat()}" if holding.begins else "",
        f" until {holding.ends.isoformat()}" if holding.ends else "",
        f" in {'; '.join(map(str, holding.held.role.hours))} {holding.held.zone.key}"
        if holding.held.role.hours
        else "",
    ]
    return "".join(parts)


def _permissions(held: HeldRole) -> set[str]:
    role = held.role
    names = {f"open {kind} sessions" for kind in role.sessions}
    names |= {f"set the variable {name}" for name in role.accept_env}
    names |= {f"use the image {name}" for name in role.images}
    names |= {f"use the GPU profile {name}" for name in role.gpu_profiles}
    names |= {f"mount the dataset {name}" for name in role.datasets}
    names |= {f"read the shared volume {volume.name}" for volume in role.shared}
    names |= {f"write to the shared volume {volume.name}" for volume in role.shared if volume.is_writable}
    names |= {f"log in with certificates of {name}" for name in role.certificate_authorities}
    names |= {f"have the page of {whose(level)}" for level in LEVELS[1 : LEVELS.index(level_of_role(role)) + 1]}
    if role.allow_stream_local_forwarding in {"local", "yes"}:
        names.add("reach Unix sockets in the environment")
    if role.allow_stream_local_forwarding in {"remote", "yes"}:
        names.add("create Unix sockets in the environment")
    if role.allow_agent_forwarding:
        names.add("forward an agent")
    if role.egress.mode == "internet":
        names.add("connect to the internet")
    return names | {f"connect to {target}" for target in role.egress.targets}


def _denied(held: HeldRole) -> set[str]:
    """Return the permissions that a role's denials take away by exactly that name."""
    deny = held.role.deny
    names = {f"open {kind} sessions" for kind in deny.sessions}
    names |= {f"set the variable {name}" for name in deny.accept_env}
    names |= {f"use the image {name}" for name in deny.images}
    names |= {f"use the GPU profile {name}" for name in deny.gpu_profiles}
    names |= {f"mount the dataset {name}" for name in deny.datasets}
    names |= {f"{act} the shared volume {name}" for act in ("read", "write to") for name in deny.shared}
    if PAGE_PORT in deny.permit_open.host_ports(GATEWAY_HOST):
        names |= {f"have the page of {whose(level)}" for level in LEVELS[1:]}
    if deny.allow_stream_local_forwarding:
        names |= {"reach Unix sockets in the environment", "create Unix sockets in the environment"}
    if deny.allow_agent_forwarding:
        names.add("forward an agent")
    return names


def _denials(effective: EffectiveRoles) -> set[str]:
    """Return what no role can give: denials may cut into patterns, so they are compared as they stand."""
    names: set[str] = set()
    for held in effective.denying:
        deny = held.role.deny
        names |= {f"never the variable {name}" for name in deny.accept_env}
        names |= {f"never the image {name}" for name in deny.images}
        names |= {f"never the GPU profile {name}" for name in deny.gpu_profiles}
        names |= {f"never the dataset {name}" for name in deny.datasets}
        names |= {f"never the shared volume {name}" for name in deny.shared}
        names |= {f"never from {network}" for network in deny.networks}
        names |= {f"never {kind} keys" for kind in deny.key_types}
        names |= {"never connections to the outside"} if deny.egress else set()
        names |= {f"never connections by name to {target}" for target in deny.egress_hosts}
    return names


def _restrictions(effective: EffectiveRoles) -> set[str]:
    roles = [held.role for held in effective.held]
    kinds = [kind for kind in SAFE_KEY_TYPES if all(kind in role.key_types for role in roles)]
    names = {f"only RSA keys from {max(role.required_rsa_size for role in roles)} bits"}
    names |= {f"only from {', '.join(map(str, networks))}" for networks, _rule in effective.networks}
    names |= {f"only {' and '.join(kinds) or 'no'} keys"} if kinds != list(SAFE_KEY_TYPES) else set()
    names |= {"only keys in a security key"} if any(role.require_hardware_key for role in roles) else set()
    names |= {"only certificates"} if any(role.require_certificate for role in roles) else set()
    return names | ({"terminals are recorded"} if any(role.record_sessions for role in roles) else set())


def _ports(policy: Policy, effective: EffectiveRoles) -> dict[str, Ports]:
    hosts = {host for held in effective.held for host, _ports in held.role.permit_open.hosts}
    forwards: dict[str, Ports] = {}
    for host in (_LOOPBACK, *sorted(hosts)):
        permitted = denied = Ports()
        for held in effective.held:
            permitted |= held.role.permit_open.ports_of(host, policy.notebook_port)
            denied |= held.role.deny.permit_open.ports_of(host, policy.notebook_port)
        forwards[f"forward to {host}"] = permitted - denied
    listen = denied = Ports()
    for held in effective.held:
        listen |= held.role.permit_listen.loopback
        denied |= held.role.deny.permit_listen.loopback
    forwards["listen in the environment on"] = listen - denied
    return forwards | _hosts(effective)


def _hosts(effective: EffectiveRoles) -> dict[str, Ports]:
    """Return the ports of each name outside; one that is denied as a whole is gone, also by a wider pattern."""
    ports: dict[str, Ports] = {}
    for target in hosts_of(effective):
        denied = Ports()
        for held in effective.denying:
            for cut in held.role.deny.egress_hosts:
                denied |= cut.ports if cut.fits(target.name) or cut.name == target.name else Ports()
        name = f"connect by name to {target.name} port"
        ports[name] = ports.get(name, Ports()) | (target.ports - denied)
    return ports


def _numbers(effective: EffectiveRoles) -> dict[str, float]:
    """Return the numbers; spans only where there is something that lasts."""
    allowance = limits_held(effective)
    numbers: dict[str, float] = {
        "environments": allowance.environments,
        "memory": allowance.memory_bytes,
        "processors": allowance.cpus,
        "GPUs": allowance.gpus,
        "connections": allowance.connections,
        "channels": allowance.sessions,
    }
    if allowance.environments:
        numbers["lifetime"] = _or_infinite(allowance.lifetime_seconds)
        numbers["disk"] = _or_infinite(allowance.disk_bytes)
        numbers["idle time"] = _or_infinite(allowance.idle_stop_seconds)
    if allowance.gpus:
        numbers["lease"] = _or_infinite(allowance.lease_seconds)
    return numbers


def _or_infinite(value: int | None) -> float:
    return math.inf if value is None else value
