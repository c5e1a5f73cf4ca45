"""GPU seconds leased and used since the process began, by user: sums that only grow, as counters must."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from gateway.metrics import families
from gateway.metrics.families import AnyFamily
from gateway.store.leases import Lease, PastLease
from gateway.store.usage import HOUR, Sample

_Key = tuple[str, str, datetime]


class GpuSeconds:
    """Adds what came since the look before. `past` gives leases ended since a moment, `samples` hours between two."""

    def __init__(
        self,
        past: Callable[[datetime], Iterable[PastLease]],
        samples: Callable[[datetime, datetime], Iterable[Sample]],
        now: datetime,
    ) -> None:
        self._past = past
        self._samples = samples
        self._looked_at = now
        self._leased: defaultdict[str, float] = defaultdict(float)
        self._used: defaultdict[str, float] = defaultdict(float)
        self._busy = {key: busy for key, _user, busy in self._recent(now)}
        self._guard = threading.Lock()

    def look(self, held: Iterable[Lease], now: datetime) -> None:
        """Count up to now."""
        with self._guard:
            before = self._looked_at
            if now <= before:  # the clock was set back: what is counted stays
                return
            for lease in held:
                self._lease(lease.ref.user, max(before, lease.leased_at), now)
            for ended in self._past(before):
                self._lease(ended.ref.user, max(before, ended.leased_at), min(now, ended.ended_at))
            busy: dict[_Key, float] = {}
            for key, user, seconds in self._recent(now):
                self._used[user] += max(0.0, seconds - self._busy.get(key, 0.0))
                busy[key] = seconds
            self._busy, self._looked_at = busy, now

    def _lease(self, user: str, begin: datetime, end: datetime) -> None:
        self._leased[user] += max(0.0, (end - begin).total_seconds())

    def _recent(self, now: datetime) -> Iterable[tuple[_Key, str, float]]:
        """Return this hour's samples and those of the hour before, to which the last look may have added."""
        for sample in self._samples(now - HOUR, now + timedelta(seconds=1)):
            yield (sample.gpu, str(sample.ref), sample.hour), sample.ref.user, sample.busy_seconds

    def families(self) -> tuple[AnyFamily, AnyFamily]:
        """Return both sums; whoever leased has both."""
        leased, used = families.LEASED_SECONDS.new(), families.USED_SECONDS.new()
        with self._guard:
            for user in sorted(self._leased.keys() | self._used.keys()):
                leased.add_metric([user], self._leased[user])
                used.add_metric([user], self._used[user])
        return leased, used
