"""Long lists in pieces: nobody is sent ten thousand rows at once."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

_One = TypeVar("_One")
ROWS = 100
"""Of one page."""


def paged(several: Sequence[_One], page: int, described: Callable[[_One], dict[str, Any]]) -> dict[str, Any]:
    """Return one page of a list, counted from 1, and how many there are; a page beyond the last is the last."""
    pages = max(1, math.ceil(len(several) / ROWS))
    number = min(max(1, page), pages)
    rows = several[(number - 1) * ROWS : number * ROWS]
    return {"rows": [described(one) for one in rows], "page": number, "pages": pages, "total": len(several)}
