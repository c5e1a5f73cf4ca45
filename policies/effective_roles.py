"""What a user holds at a moment, worked out once for each set of roles so that a decision only looks it up."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import cached_property
from zoneinfo import ZoneInfo

from policies.addresses import Network
from policies.hours import begins_at, ends_at
from policies.ports import LOOPBACK_HOSTS, PortMap
from policies.role import Grant, Role
from policies.source import Source


class HeldRole:
    """A role with its name and the places of its options, for rules in decisions."""

    def __init__(self, name: str, role: Role, source: Source, default_zone: str) -> None:
        self.name = name
        self.role = role
        self.zone = ZoneInfo(role.time_zone or default_zone)
        self.begins = begins_at(role.from_, self.zone) if role.from_ else None
        self.ends = ends_at(role.until, self.zone) if role.until else None
        self._source = source
        self._hours_known: tuple[datetime, bool] | None = None

    def rule(self, option: str) -> str:
        """Name the option and where it stands: `roles.member.sessions (policy.toml:12)`."""
        key = f"roles.{self.name}.{option}"
        return f"{key} ({self._source.place(key)})"

    def is_in_hours(self, at: datetime) -> bool:
        """Say whether the weekly hours, if any, are now."""
        if not self.role.hours:
            return True
        minute = at.replace(second=0, microsecond=0)
        known = self._hours_known
        if known is None or known[0] != minute:
            local = minute.astimezone(self.zone)
            known = self._hours_known = (minute, any(hours.covers(local) for hours in self.role.hours))
        return known[1]


@dataclass(frozen=True, slots=True)
class Holding:
    """One role held by one grant, with the span in which it is valid: the grant's and the role's together."""

    held: HeldRole
    rule: str
    begins: datetime | None = None
    ends: datetime | None = None
    reason: str = ""

    def is_valid(self, at: datetime) -> bool:
        return (self.begins is None or self.begins <= at) and (self.ends is None or at < self.ends)

    @property
    def is_timed(self) -> bool:
        return self.begins is not None or self.ends is not None or bool(self.held.role.hours)


class EffectiveRoles:
    """The roles a user holds now. `held` count for denials, restrictions and resources; `in_force` for channels."""

    def __init__(self, held: tuple[HeldRole, ...], in_force: tuple[HeldRole, ...]) -> None:
        self.held = held
        self.in_force = in_force
        self._loopback: tuple[PortMap[HeldRole], PortMap[HeldRole]] | None = None

    @cached_property
    def denying(self) -> tuple[HeldRole, ...]:
        """Roles that deny anything: most do not, and a decision need not look at those."""
        return tuple(held for held in self.held if held.role.deny.model_fields_set)

    @cached_property
    def login_denial(self) -> HeldRole | None:
        """The first role that denies login altogether."""
        return next((held for held in self.denying if held.role.deny.login), None)

    @cached_property
    def denied_key_types(self) -> Mapping[str, HeldRole]:
        """Each denied kind of key with the first role that denies it."""
        return {kind: held for held in reversed(self.denying) for kind in held.role.deny.key_types}

    @cached_property
    def denied_networks(self) -> tuple[tuple[tuple[Network, ...], str], ...]:
        """The denied networks of each role that denies some, with its rule; the same networks once."""
        distinct = {held.role.deny.networks: held for held in reversed(self.denying) if held.role.deny.networks}
        return tuple((networks, held.rule("deny.networks")) for networks, held in distinct.items())

    @cached_property
    def networks(self) -> tuple[tuple[tuple[Network, ...], str], ...]:
        """The networks of each role that names some, with its rule; the same networks once."""
        distinct = {held.role.networks: held for held in reversed(self.held) if held.role.networks}
        return tuple((networks, held.rule("networks")) for networks, held in distinct.items())

    @cached_property
    def key_rules(self) -> tuple[HeldRole, ...]:
        """One role for each different set of restrictions on keys."""
        distinct = {
            (role.key_types, role.required_rsa_size, role.require_hardware_key, role.require_certificate): held
            for held in reversed(self.held)
            for role in (held.role,)
        }
        return tuple(distinct.values())

    def destinations(self, host: str, notebook_port: int) -> tuple[PortMap[HeldRole], PortMap[HeldRole]]:
        """Return who denies and who permits which ports of a host; for loopback worked out once."""
        if host in LOOPBACK_HOSTS and self._loopback is not None:
            return self._loopback
        denied = PortMap((held.role.deny.permit_open.ports_of(host, notebook_port), held) for held in self.denying)
        permitted = PortMap((held.role.permit_open.ports_of(host, notebook_port), held) for held in self.in_force)
        if host in LOOPBACK_HOSTS:
            self._loopback = (denied, permitted)
        return denied, permitted


class Register:
    """Who holds what. Built when a policy is loaded; grows by one entry for each set of roles met at the same time."""

    def __init__(self, default_holdings: tuple[Holding, ...], holdings: Mapping[str, tuple[Holding, ...]]) -> None:
        self._default = default_holdings
        self._holdings = holdings
        self._untimed = {
            user: self._roles_of(held, held)
            for user, held in (*holdings.items(), ("", default_holdings))
            if not any(holding.is_timed for holding in held)
        }
        self._timed: dict[tuple[tuple[str, ...], tuple[str, ...]], EffectiveRoles] = {}
        self._recent: dict[str, tuple[datetime, datetime, EffectiveRoles]] = {}

    def holdings(self, user: str) -> tuple[Holding, ...]:
        """Return what a user was granted, in force or not; default roles for one whom no grant names."""
        return self._holdings.get(user, self._default)

    def users(self) -> tuple[str, ...]:
        """Return every user a grant names."""
        return tuple(self._holdings)

    def effective_roles(self, user: str, at: datetime) -> EffectiveRoles:
        """Return what a user holds at a moment."""
        name = user if user in self._holdings else ""
        known = self._untimed.get(name)
        if known is not None:
            return known
        begins, ends, recent = self._recent.get(name, (at, at, None))
        if recent is None or not begins <= at < ends:
            recent = self._standing_at(name, at)
            self._recent[name] = (*self._unchanged_span(name, at), recent)
        return recent

    def _unchanged_span(self, user: str, at: datetime) -> tuple[datetime, datetime]:
        """Return a span around a moment in which nothing can change: hours turn on minutes, grants at their ends."""
        begins = at.replace(second=0, microsecond=0)
        ends = begins + timedelta(minutes=1)
        edges = [edge for holding in self.holdings(user) for edge in (holding.begins, holding.ends) if edge]
        before = [edge for edge in edges if begins < edge <= at]
        after = [edge for edge in edges if at < edge < ends]
        return max(before, default=begins), min(after, default=ends)

    def _standing_at(self, user: str, at: datetime) -> EffectiveRoles:
        held = tuple(holding for holding in self.holdings(user) if holding.is_valid(at))
        in_force = tuple(holding for holding in held if holding.held.is_in_hours(at))
        key = (tuple(one.held.name for one in held), tuple(one.held.name for one in in_force))
        effective = self._timed.get(key)
        if effective is None:
            effective = self._timed[key] = self._roles_of(held, in_force)
        return effective

    @staticmethod
    def _roles_of(held: tuple[Holding, ...], in_force: tuple[Holding, ...]) -> EffectiveRoles:
        return EffectiveRoles(_distinct(held), _distinct(in_force))


def _distinct(holdings: tuple[Holding, ...]) -> tuple[HeldRole, ...]:
    return tuple({holding.held.name: holding.held for holding in holdings}.values())


def register(
    roles: Mapping[str, Role], grants: tuple[Grant, ...], default_roles: tuple[str, ...], zone: str, source: Source
) -> Register:
    """Work out everyone's holdings."""
    held = {name: HeldRole(name, role, source, zone) for name, role in roles.items()}
    holdings: dict[str, list[Holding]] = {}
    for index, grant in enumerate(grants):
        rule = f"grants[{index}] ({source.place(f'grants.{index}')})"
        for name in grant.roles:
            holding = _holding(held[name], rule, grant, ZoneInfo(zone))
            for user in grant.users:
                holdings.setdefault(user, []).append(holding)
    rule = f"default_roles ({source.place('default_roles')})"
    default = tuple(Holding(held[name], rule, held[name].begins, held[name].ends) for name in default_roles)
    return Register(default, {user: tuple(several) for user, several in holdings.items()})


def _holding(held: HeldRole, rule: str, grant: Grant, zone: tzinfo) -> Holding:
    begins = [moment for moment in (held.begins, begins_at(grant.from_, zone) if grant.from_ else None) if moment]
    ends = [moment for moment in (held.ends, ends_at(grant.until, zone) if grant.until else None) if moment]
    return Holding(held, rule, max(begins, default=None), min(ends, default=None), grant.reason)
