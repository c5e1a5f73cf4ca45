"""Reads the frames of an SFTP stream as they pass (draft-ietf-secsh-filexfer-02), keeping the head of each only.

Never holds more than one head, however long a packet claims to be; what is malformed ends the reading, not the session.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 16 << 10
"""Enough for two paths of PATH_MAX and what stands before them; file contents lie behind."""
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet's type, its whole length without the length field, and the first bytes behind the type."""

    kind: int
    length: int
    head: bytes


class Framer:
    """Cuts one direction into packets."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yield the packets whose heads are complete."""
        view = memoryview(data)
        while view:
            if self._skip:
                passed = min(self._skip, len(view))
                self._skip -= passed
                view = view[passed:]
                continue
            wanted = self._wanted()
            taken = view[: wanted - len(self._head)]
            self._head += taken
            view = view[len(taken) :]
            if len(self._head) >= _LENGTH_BYTES and len(self._head) >= self._wanted():
                yield from self._finish()

    def _wanted(self) -> int:
        """Return how many bytes the head takes, as far as that is known."""
        if len(self._head) < _LENGTH_BYTES:
            return _LENGTH_BYTES
        return _LENGTH_BYTES + min(int.from_bytes(self._head[:_LENGTH_BYTES]), HEAD_BYTES)

    def _finish(self) -> Iterator[Packet]:
        length = int.from_bytes(self._head[:_LENGTH_BYTES])
        head = bytes(self._head[_LENGTH_BYTES:])
        self._skip = length - len(head)
        self._head.clear()
        if head:
            yield Packet(head[0], length, head[1:])


class Fields:
    """The fields of a packet, in order."""

    def __init__(self, head: bytes) -> None:
        self._rest = head

    def number(self, size: int = 4) -> int:
        """Return an integer. Raises: ValueError, when the head ends before it."""
        return int.from_bytes(self._take(size))

    def string(self) -> bytes:
        """Return a string. Raises: ValueError."""
        return self._take(self.number())

    def _take(self, size: int) -> bytes:
        if len(self._rest) < size:
            raise ValueError("the packet ends early")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
