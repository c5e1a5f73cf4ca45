"""What is kept for one site between questions: made when it is first asked for, gone with the site."""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from gateway.page.desk.site import Site

_Value = TypeVar("_Value")


class PerSite(Generic[_Value]):
    """One value for each site."""

    def __init__(self, make: Callable[[Site], _Value]) -> None:
        self._make = make
        self._guard = threading.Lock()
        self._made: WeakKeyDictionary[Any, _Value] = WeakKeyDictionary()

    def of(self, site: Site) -> _Value:
        """Return the site's own."""
        with self._guard:
            if site not in self._made:
                self._made[site] = self._make(site)
            return self._made[site]
