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
