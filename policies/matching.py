"""Matching names against the patterns of roles: `*` and `?`, case counts, nothing else is special."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from policies.effective_roles import HeldRole
from policies.role import Role


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Say whether one of the patterns fits the whole name."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def first_match(roles: Iterable[HeldRole], patterns_of: Callable[[Role], Iterable[str]], name: str) -> HeldRole | None:
    """Return the first role one of whose patterns fits."""
    return next((held for held in roles if matches_any(name, patterns_of(held.role))), None)
