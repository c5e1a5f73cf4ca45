"""What many look at is read once: a reading that all share for a moment, and what is kept for each owner."""

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet, proxy

_Owner = TypeVar("_Owner")
_Value = TypeVar("_Value")


_LISTED = threading.Lock()
_ALL: "WeakSet[Shared[Any]]" = WeakSet()


class Shared(Generic[_Value]):
    """What `read` returned, for `seconds`; who comes while it is being read waits for it."""

    def __init__(
        self, read: Callable[[], _Value], seconds: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._seconds = seconds
        self._clock = clock
        self._guard = threading.Lock()
        self._changes = 0
        self._found: tuple[float, int, _Value] | None = None
        with _LISTED:
            _ALL.add(self)

    def forget(self) -> None:
        """Have it read anew; what is being read just now counts as old when it is there."""
        self._changes += 1

    def get(self) -> _Value:
        """Return it, read anew where it is too old."""
        with self._guard:
            changes, found = self._changes, self._found
            if found is None or found[1] != changes or self._clock() - found[0] > self._seconds:
                read = self._read()  # its time counts from its end: those who waited for a slow one share it
                found = self._found = (self._clock(), changes, read)
            return found[2]


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


def read_anew() -> None:
    """Forget every reading of this process: whoever has just changed something sees it at their next look."""
    with _LISTED:
        known = list(_ALL)
    for one in known:
        one.forget()
