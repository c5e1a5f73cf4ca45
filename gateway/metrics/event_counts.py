"""What the journal says, counted: it holds what every process of the gateway and every command did, so the sums do too.

Counting begins with the process and reads records as they are written; how they are read is `audit.read.follow`'s.
"""

import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from gateway.audit.codes import CODES, DECISIONS
from gateway.audit.read import Filter, follow
from gateway.audit.record import Record
from gateway.metrics import families
from gateway.metrics.families import AnyFamily

WAKE_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
QUEUE_BUCKETS = (10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0)
_WAITERS_MAX = _CLOSED_MAX = 4096
_XID = re.compile(r"critical error Xid ([0-9]+)")
_OTHER = "other"
_LOGINS = {"login.allowed": "allowed", "login.denied": "denied", "login.refused": "refused"}


class Histogram:
    """Observations in buckets."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        place = next((index for index, bound in enumerate(self._bounds) if value <= bound), len(self._bounds))
        self._counts[place] += 1
        self._sum += value

    def family(self, declared: families.Family) -> AnyFamily:
        """Return what was counted, as Prometheus counts: each bucket with those below it."""
        edges = [*(str(bound) for bound in self._bounds), "+Inf"]
        buckets = [(edge, float(sum(self._counts[: index + 1]))) for index, edge in enumerate(edges)]
        return declared.histogram(buckets, self._sum)


class EventCounts:
    """Sums since the process began. Fed on one thread, collected on others."""

    def __init__(self, policy_loaded_at: datetime) -> None:
        self._guard = threading.Lock()
        self._codes = Counter(dict.fromkeys(CODES, 0))
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._moved: Counter[str] = Counter(dict.fromkeys(("sent", "received"), 0))
        self._seen: dict[str, tuple[int, int]] = {}
        self._missing: set[str] = set()
        self._closed: OrderedDict[str, None] = OrderedDict()
        self._xids: Counter[tuple[str, str]] = Counter()
        self._wakes, self._waits = Histogram(WAKE_BUCKETS), Histogram(QUEUE_BUCKETS)
        self._queued: OrderedDict[str, datetime] = OrderedDict()
        self._policy_loaded_at = policy_loaded_at

    def follow(self, directory: Path, wait: Callable[[], bool]) -> None:
        """Count what is written from now on until `wait` says False. Raises: OSError, ValueError."""
        for record in follow(directory, Filter(), wait):
            self.count(record)

    def count(self, record: Record) -> None:
        """Count one record; one that stands for many refusals counts for as many."""
        detail = record.detail
        with self._guard:
            self._codes[record.code if record.code in CODES else _OTHER] += _whole(detail.get("count"), 1)
            if record.code in {"session.closed", "forward.closed"}:
                kind = str(detail.get("kind", _OTHER))
                self._bytes[kind, "sent"] += _whole(detail.get("sent_bytes"))
                self._bytes[kind, "received"] += _whole(detail.get("received_bytes"))
            elif record.code == "connection.closed":
                connection = str(detail.get("connection", ""))
                self._move(connection, _whole(detail.get("sent_bytes")), _whole(detail.get("received_bytes")))
                self._close(connection)
            elif record.code == "environment.woken":
                self._wakes.observe(_number(detail.get("seconds")))
            elif record.code == "policy.loaded":
                self._policy_loaded_at = record.at
            elif record.code == "gpu.quarantined" and (found := _XID.search(record.reason)):
                self._xids[str(detail.get("gpu", "")), found[1]] += 1
            elif record.code in {"lease.queued", "lease.granted"}:
                self._wait(record)

    def saw_connections(self, live: Iterable[tuple[str, int, int]]) -> None:
        """Count what live connections have moved since they were seen last: (id, sent, received) each."""
        with self._guard:
            for connection, sent, received in live:
                if connection not in self._closed:  # its row may outlast its record by a moment
                    self._move(connection, sent, received)

    def forget_lost(self, live: Collection[str]) -> None:
        """Forget those whose worker died without a record; to be called at an interval longer than a record takes."""
        with self._guard:
            gone = self._seen.keys() - live
            for connection in gone & self._missing:
                del self._seen[connection]
            self._missing = set(gone)

    def _move(self, connection: str, sent: int, received: int) -> None:
        old_sent, old_received = self._seen.get(connection, (0, 0))
        self._moved["sent"] += max(0, sent - old_sent)
        self._moved["received"] += max(0, received - old_received)
        self._seen[connection] = max(sent, old_sent), max(received, old_received)

    def _close(self, connection: str) -> None:
        self._seen.pop(connection, None)
        self._closed[connection] = None
        while len(self._closed) > _CLOSED_MAX:
            self._closed.popitem(last=False)

    def _wait(self, record: Record) -> None:
        if record.code == "lease.queued":
            self._queued.setdefault(record.environment, record.at)
            while len(self._queued) > _WAITERS_MAX:
                self._queued.popitem(last=False)
        elif (since := self._queued.pop(record.environment, None)) is not None:
            self._waits.observe(max(0.0, (record.at - since).total_seconds()))

    def collect(self, parent_of: Callable[[str], tuple[str, str]]) -> Iterator[AnyFamily]:
        """Yield the families. `parent_of` tells the labels of a GPU or slice."""
        with self._guard:
            yield from self._of_codes()
            yield self._wakes.family(families.WAKE_SECONDS)
            yield self._waits.family(families.QUEUE_WAIT)
            moved = families.CONNECTION_BYTES.new()
            for direction, size in self._moved.items():
                moved.add_metric([direction], size)
            by_kind = families.CHANNEL_BYTES.new()
            for (kind, direction), size in sorted(self._bytes.items()):
                by_kind.add_metric([kind, direction], size)
            errors = families.XID_ERRORS.new()
            for (gpu, xid), count in sorted(self._xids.items()):
                errors.add_metric([*parent_of(gpu), xid], count)
            yield from (moved, by_kind, errors, families.POLICY_LOADED.of(self._policy_loaded_at.timestamp()))

    def _of_codes(self) -> Iterator[AnyFamily]:
        events, decisions, logins = families.EVENTS.new(), families.DECISIONS.new(), families.LOGINS.new()
        for code, count in self._codes.items():
            events.add_metric([code], count)
        for action in DECISIONS:
            for outcome in ("allowed", "denied"):
                decisions.add_metric([action, outcome], self._codes[f"{action}.{outcome}"])
        for code, result in _LOGINS.items():
            logins.add_metric([result], self._codes[code])
        yield from (events, decisions, logins)


def _whole(value: object, otherwise: int = 0) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
