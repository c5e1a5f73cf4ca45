"""Shares of the last looks as one line of characters."""

from collections.abc import Sequence

LOOKS = 30
"""How many of the last looks a graph shows."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.:-=+*#"


def graph(shares: Sequence[float | None], *, ascii_only: bool = False) -> str:
    """Draw shares from 0 to 1, the newest last; what nobody told is a gap."""
    steps = _ASCII if ascii_only else _BLOCKS
    return "".join(
        " " if share is None else steps[min(len(steps) - 1, int(max(share, 0.0) * len(steps)))] for share in shares
    )
