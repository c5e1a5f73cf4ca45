"""The difference between two policies in effects: who gains what, who loses what. Role names alone do not matter."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from policies.effects import SPANS, Effects, effects_of, show_number
from policies.model import Policy
from policies.ports import Ports

EVERYONE_ELSE = "*"
"""Stands for every user whom no grant names."""

Verb = Literal["gains", "loses", "is restricted", "is freed"]
_Effect = tuple[Verb, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One effect, and everyone it concerns."""

    verb: Verb
    effect: str
    users: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.users)} {self.verb}: {self.effect}"

    def as_dict(self) -> dict[str, Any]:
        """Return what `-o json` prints."""
        return {"verb": self.verb, "effect": self.effect, "users": list(self.users)}


def diff(old: Policy, new: Policy) -> tuple[Change, ...]:
    """Compare two policies for every user that one of them names, and for all others together as `*`."""
    users = sorted({*old.holders.users(), *new.holders.users()})
    concerned: dict[_Effect, list[str]] = defaultdict(list)
    for user in (*users, EVERYONE_ELSE):
        for effect in _changes(effects_of(old, user), effects_of(new, user)):
            concerned[effect].append(user)
    for effect in _changes_for_all(old, new):
        concerned[effect] = [EVERYONE_ELSE]
    return tuple(Change(verb, effect, tuple(several)) for (verb, effect), several in sorted(concerned.items()))


def _changes(old: Effects, new: Effects) -> Iterator[_Effect]:
    yield from (("gains", name) for name in new.names - old.names)
    yield from (("loses", name) for name in old.names - new.names)
    if old.names and new.names:
        yield from (("is restricted", name) for name in new.restrictions - old.restrictions)
        yield from (("is freed", name) for name in old.restrictions - new.restrictions)
    for target in {*old.ports, *new.ports}:
        before, after = old.ports.get(target, Ports()), new.ports.get(target, Ports())
        if gained := after - before:
            yield "gains", f"{target} {gained}"
        if lost := before - after:
            yield "loses", f"{target} {lost}"
    for name in {*old.numbers, *new.numbers}:
        if name not in SPANS or (name in old.numbers and name in new.numbers):
            yield from _number_changes(name, old.numbers.get(name, 0), new.numbers.get(name, 0))


def _number_changes(name: str, before: float, after: float) -> Iterator[_Effect]:
    if before != after:
        shown = f"{name}: {show_number(name, before)} -> {show_number(name, after)}"
        yield ("gains" if after > before else "loses"), shown


def _changes_for_all(old: Policy, new: Policy) -> Iterator[_Effect]:
    """Compare what is said of keys and CAs rather than of users."""
    before, after = _refusals(old), _refusals(new)
    yield from (("is restricted", name) for name in after - before)
    yield from (("is freed", name) for name in before - after)


def _refusals(policy: Policy) -> set[str]:
    names = {f"the key {fingerprint} is revoked" for fingerprint in policy.revoked_keys}
    for name, authority in policy.certificate_authorities.items():
        names |= {f"the certificate {serial} of {name} is revoked" for serial in authority.revoked_serials}
        names |= {f"the certificate {key_id!r} of {name} is revoked" for key_id in authority.revoked_key_ids}
        names.add(f"certificates of {name} ({authority.fingerprint}) for at most {authority.max_validity} seconds")
    return names
