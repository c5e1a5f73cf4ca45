"""What an observer remembers of a session: bounded by count and by bytes, the oldest goes first."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Values by key, each with the bytes that it is said to take."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return what is remembered under a key."""
        entry = self._entries.get(key)
        return entry[0] if entry else None

    def put(self, key: K, value: V, size: int) -> Iterator[V]:
        """Remember a value; yield those that had to go: its predecessor under the key, then the oldest."""
        before = self.pop(key)
        if before is not None:
            yield before
        self._entries[key] = (value, size)
        self.held_bytes += size
        while len(self._entries) > self._max_entries or (self.held_bytes > self._max_bytes and len(self._entries) > 1):
            yield self._pop_oldest()

    def pop(self, key: K) -> V | None:
        """Forget what is under a key and return it."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.held_bytes -= entry[1]
        return entry[0]

    def drain(self) -> Iterator[V]:
        """Forget everything, the oldest first."""
        while self._entries:
            yield self._pop_oldest()

    def _pop_oldest(self) -> V:
        _, (value, size) = self._entries.popitem(last=False)
        self.held_bytes -= size
        return value
