"""One reading for all viewers: what live parts show is read once a second, however many look."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

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


_Whose = TypeVar("_Whose")


class SharedOf(Generic[_Whose, _Value]):
    """The same of what is read from somebody, such as a site; asked of another, it is read anew."""

    def __init__(self, read: Callable[[_Whose], _Value], seconds: float = 1.0) -> None:
        self._read = read
        self._seconds = seconds
        self._guard = threading.Lock()
        self._held: tuple[_Whose, Shared[_Value]] | None = None

    def of(self, whose: _Whose) -> _Value:
        """Return what was read of it, no older than the seconds."""
        with self._guard:
            if self._held is None or self._held[0] is not whose:
                self._held = (whose, Shared(lambda: self._read(whose), self._seconds))
            shared = self._held[1]
        return shared.get()
