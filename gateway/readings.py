"""What many look at is read once: a reading that all share for a moment, and what is kept for each owner."""

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, proxy

_Owner = TypeVar("_Owner")
_Value = TypeVar("_Value")


class Shared(Generic[_Value]):
    """What `read` returned, for `seconds`; who comes while it is being read waits for it."""

    def __init__(self, read: Callable[[], _Value], seconds: float = 1.0) -> None:
        self._read = read
        self._seconds = seconds
        self._guard = threading.Lock()
        self._found: tuple[float, _Value] | None = None

    def get(self) -> _Value:
        """Return it, read anew where it is too old."""
        with self._guard:
            if self._found is None or time.monotonic() - self._found[0] > self._seconds:
                self._found = (time.monotonic(), self._read())
            return self._found[1]


class OfEach(Generic[_Owner, _Value]):
    """One value for each owner, such as a site: made when it is first asked for, gone with the owner.

    `make` is given a weak proxy of the owner, so that what is made does not keep it.
    """

    def __init__(self, make: Callable[[_Owner], _Value]) -> None:
        self._make = make
        self._guard = threading.Lock()
        self._made: WeakKeyDictionary[Any, _Value] = WeakKeyDictionary()

    def of(self, owner: _Owner) -> _Value:
        """Return the owner's own."""
        with self._guard:
            if owner not in self._made:
                self._made[owner] = self._make(proxy(owner))
            return self._made[owner]


def shared_of(read: Callable[[_Owner], _Value]) -> OfEach[_Owner, Shared[_Value]]:
    """Return what is read of each owner at most once a second, however many look."""
    return OfEach(lambda owner: Shared(lambda: read(owner)))
