"""Which page holds which: an auditor's holds a user's, an administrator's both."""

from policies.requests import PageLevel

_ORDER: tuple[PageLevel, ...] = ("none", "user", "auditor", "admin")


def includes(held: str, asked: str) -> bool:
    """Say whether whoever has one page may see what is on another."""
    return held in _ORDER and asked in _ORDER and _ORDER.index(held) >= _ORDER.index(asked)
