"""Asks again and again what running environments use, and adds it to the account of each hour."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from gateway.engines.interface import Load
from gateway.errors import DevgwError
from gateway.model import EnvironmentRef
from gateway.store.load import LoadSample


class Account(Protocol):
    """Where samples are added up."""

    def add(self, samples: Sequence[LoadSample]) -> None:
        """Add to what is known of the same environment and hour."""


class LoadSampler:
    """One look at a time.

    What an environment used since the look before counts for the time since then. After more than two intervals, as
    when the gateway was down, that time stays unobserved. An environment that started anew counts from its start.
    """

    def __init__(
        self,
        running: Callable[[], Iterable[EnvironmentRef]],
        load: Callable[[EnvironmentRef], Load | None],
        account: Account,
        interval_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._running = running
        self._load = load
        self._account = account
        self._longest_seconds = 2 * interval_seconds
        self._now = now
        self._before: dict[EnvironmentRef, tuple[datetime, float]] = {}

    def look(self) -> None:
        """Ask of every running environment. Raises: DevgwError `engine.unreachable`, and what the account raises."""
        seen: dict[EnvironmentRef, tuple[datetime, float]] = {}
        samples: list[LoadSample] = []
        for ref in self._running():
            try:
                load = self._load(ref)
            except DevgwError as exc:
                if exc.code == "engine.unreachable":  # of the others nothing would be heard either
                    raise
                continue
            if load is not None:
                now = self._now()
                seen[ref] = (now, load.cpu_seconds)
                samples.append(self._sample(ref, load, now))
        self._before = seen
        if samples:
            self._account.add(samples)

    def _sample(self, ref: EnvironmentRef, load: Load, now: datetime) -> LoadSample:
        looked_at, used = self._before.get(ref, (now, load.cpu_seconds))
        seconds = (now - looked_at).total_seconds()
        hour = now.replace(minute=0, second=0, microsecond=0)
        if not 0 < seconds <= self._longest_seconds:
            return LoadSample(ref, hour, 0.0, 0.0, load.memory_bytes)
        since = load.cpu_seconds - used if load.cpu_seconds >= used else load.cpu_seconds
        return LoadSample(ref, hour, seconds, since, load.memory_bytes)
