"""What signed heads prove of a chain: which of them it met, which it could not meet, and whether a gap is explained.

`verify` walks along the records and asks here; nothing is read in this module.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.audit.heads import Head, Pruned
from gateway.audit.record import GENESIS, Record

_NONE = -1


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two heads were signed at one number over different records: one of two journals is not this one."""

    size: int
    message: str


def disagreement(heads: Iterable[Head]) -> Disagreement | None:
    """Find two heads that cannot both be of one journal."""
    known: dict[int, bytes] = {0: GENESIS}
    for head in heads:
        if known.setdefault(head.size, head.digest) != head.digest:
            message = f"two heads at record {head.size} are signed over different records"
            return Disagreement(head.size, message)
    return None


@dataclass(slots=True)
class HeadComparison:
    """Heads that were given, and those that pruning left beside the journal (None: no key to check them with)."""

    given: Sequence[Head]
    kept: Sequence[Head] | None = ()
    next_size: int = _NONE
    """The number of the next record that a head was signed over."""
    compared: set[int] = field(default_factory=set)
    gap: Pruned | None = None
    """What the oldest segment left says that it follows."""
    _waiting: list[int] = field(default_factory=list)
    _digests: dict[int, bytes] = field(default_factory=dict)
    _statements: list[tuple[int, Pruned]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._digests = {head.size: head.digest for head in self._all if head.size}
        self._waiting = sorted(self._digests, reverse=True)
        self._take_next()

    @property
    def _all(self) -> tuple[Head, ...]:
        return (*self.given, *(self.kept or ()))

    @property
    def newest(self) -> Head | None:
        """The head over the most records, of those that were given."""
        return max(self.given, key=lambda head: head.size, default=None)

    @property
    def proven_seq(self) -> int:
        """The last record that a head was found to be signed over; 0 for none."""
        return max(self.compared, default=0)

    def begin_after(self, seq: int, digest: bytes) -> bool:
        """Pass over the heads at records that are gone. False where one at the last of these differs."""
        self.gap = Pruned(seq, digest)
        while self.next_size != _NONE and self.next_size < seq:
            self._take_next()
        return self.next_size != seq or self.meet(seq, digest)

    def meet(self, seq: int, digest: bytes) -> bool:
        """Compare the record at `next_size` with its head."""
        self._take_next()
        if self._digests[seq] != digest:
            return False
        self.compared.add(seq)
        return True

    def note_pruned(self, record: Record) -> None:
        """Remember what a journal.pruned record says was removed."""
        try:
            stated = Pruned(int(record.detail["last_seq"] or 0), bytes.fromhex(str(record.detail["last_hash"])))
        except (KeyError, ValueError, TypeError, OverflowError):
            return
        self._statements.append((record.number, stated))

    def beyond(self, seq: int) -> Head | None:
        """Return the newest head signed over more records than there are."""
        return max((head for head in self._all if head.size > seq), key=lambda head: head.size, default=None)

    def uncompared(self) -> list[Head]:
        """Return the heads given that no record left could be compared with."""
        return [head for head in self.given if head.size not in self.compared]

    def is_announced(self) -> bool:
        """Say whether a record of the chain, signed or not, says that what is gone was pruned."""
        return any(self._covers(stated) for _number, stated in self._statements)

    def is_explained(self) -> bool:
        """Say whether a signed head that was compared says so, or covers a record that does."""
        by_head = (head.pruned for head in self._all if head.size in self.compared)
        by_record = (stated for number, stated in self._statements if number <= self.proven_seq)
        return any(stated is not None and self._covers(stated) for stated in (*by_head, *by_record))

    def _covers(self, stated: Pruned) -> bool:
        """Pruning that was cut short leaves some of what it named; the chain up to a compared head is pinned by it."""
        return self.gap is not None and (stated == self.gap or stated.last_seq > self.gap.last_seq)

    def _take_next(self) -> None:
        self.next_size = self._waiting.pop() if self._waiting else _NONE
