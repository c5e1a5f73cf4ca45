"""The numbers and lists that other rooms enforce: what several roles held at once add up to.

One merge rule per option: the largest maximum, every name, the widest egress, but the shortest idle stop, and recording
as soon as one role asks for it. An option no role sets is zero, or no limit where that is what unset means.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, reduce

from policies.effective_roles import EffectiveRoles
from policies.egress import EgressRule
from policies.egress_hosts import HostTarget
from policies.matching import first_match
from policies.model import Policy
from policies.role import Role
from policies.shared import SharedVolume
from policies.sharing import shared_of


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a user may use. None stands for no limit."""

    environments: int = 0
    memory_bytes: int = 0
    disk_bytes: int | None = None
    cpus: float = 0.0
    lifetime_seconds: int | None = None
    gpus: int = 0
    gpu_profiles: tuple[str, ...] = ()
    lease_seconds: int | None = None
    connections: int = 0
    sessions: int = 0
    idle_stop_seconds: int | None = None
    record_sessions: bool = False
    images: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    egress: EgressRule = field(default_factory=EgressRule)
    egress_hosts: tuple[HostTarget, ...] = ()
    shared: tuple[SharedVolume, ...] = ()


def limits_of(policy: Policy, user: str, at: datetime) -> Allowance:
    """Return everything a user may use at a moment; hours do not matter, because environments outlast them."""
    return limits_held(policy.holders.effective_roles(user, at))


@lru_cache(maxsize=1024)
def limits_held(effective: EffectiveRoles) -> Allowance:
    """The same for a effective that was looked up already; users of the same roles share one."""
    roles = [held.role for held in effective.held]
    return Allowance(
        environments=_largest(roles, lambda role: role.max_environments) or 0,
        memory_bytes=_largest(roles, lambda role: role.max_memory) or 0,
        disk_bytes=_largest(roles, lambda role: role.max_disk),
        cpus=max((role.max_cpus for role in roles), default=0.0),
        lifetime_seconds=_largest(roles, lambda role: role.max_lifetime),
        gpus=_largest(roles, lambda role: role.max_gpus) or 0,
        gpu_profiles=_names(profiles_of(role) for role in roles),
        lease_seconds=_largest(roles, lambda role: role.max_lease),
        connections=_largest(roles, lambda role: role.max_connections) or 0,
        sessions=_largest(roles, lambda role: role.max_sessions) or 0,
        idle_stop_seconds=min((role.idle_stop for role in roles if role.idle_stop is not None), default=None),
        record_sessions=any(role.record_sessions for role in roles),
        images=_names(role.images for role in roles),
        datasets=_names(role.datasets for role in roles),
        egress=egress_of(effective),
        egress_hosts=hosts_of(effective),
        shared=shared_of(effective),
    )


def egress_of(effective: EffectiveRoles) -> EgressRule:
    """Return the widest egress that the roles add up to, unless one denies it."""
    if any(held.role.deny.egress for held in effective.denying):
        return EgressRule()
    return reduce(EgressRule.__or__, (held.role.egress for held in effective.held), EgressRule())


def hosts_of(effective: EffectiveRoles) -> tuple[HostTarget, ...]:
    """Return the hosts that the roles name together; a denial cuts into them only when one is asked for."""
    if any(held.role.deny.egress for held in effective.denying):
        return ()
    return tuple(dict.fromkeys(target for held in effective.held for target in held.role.egress_hosts))


def profiles_of(role: Role) -> tuple[str, ...]:
    """Return the GPU profiles of a role; one that permits GPUs and names none means whole ones."""
    return role.gpu_profiles or (("full",) if role.max_gpus else ())


def datasets_of(policy: Policy, user: str, known: Iterable[str], at: datetime) -> tuple[str, ...]:
    """Return which of the known datasets a user may have mounted."""
    effective = policy.holders.effective_roles(user, at)
    return tuple(
        name
        for name in known
        if first_match(effective.held, lambda role: role.datasets, name) is not None
        and first_match(effective.denying, lambda role: role.deny.datasets, name) is None
    )


def _largest(roles: list[Role], option: Callable[[Role], int | None]) -> int | None:
    return max((value for value in map(option, roles) if value is not None), default=None)


def _names(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in lists for name in names))
