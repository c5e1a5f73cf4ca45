"""What is known from outside of whether streams into a pod lead anywhere."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Loss:
    """What says of one pod that it was removed, and that its node does not answer the API.

    Both are asked on the loop, so they ask nobody.
    """

    is_gone: Callable[[], bool]
    is_away: Callable[[], bool]
