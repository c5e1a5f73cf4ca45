"""What one user's environments do just now: the store's rows, the engine's account, the driver's measurements."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from gateway.engines.interface import Load
from gateway.errors import DevgwError
from gateway.gpus.sensors import Measurement, Measuring, Sensors
from gateway.model import Environment, EnvironmentRef, EnvironmentState
from gateway.readings import OfEach, Shared, shared_of
from gateway.store.sessions import OwnedSession

if TYPE_CHECKING:
    from gateway.environments.lifecycle import EnvironmentLifecycle
    from gateway.environments.rounds import Rounds
    from gateway.gpus.waiting import Waiting
    from gateway.store.environments import EnvironmentTable
    from gateway.store.queue import QueueTable
    from gateway.store.sessions import LiveSessionTable

_USERS_MAX = 1000


class TopParts(Protocol):
    """What is asked; each part is made on first use."""

    @property
    def environments(self) -> "EnvironmentLifecycle": ...
    @property
    def live_sessions(self) -> "LiveSessionTable": ...
    @property
    def queue_table(self) -> "QueueTable": ...
    @property
    def rounds(self) -> "Rounds": ...
    @property
    def sensors(self) -> Measuring: ...
    @property
    def table(self) -> "EnvironmentTable": ...
    @property
    def waiting(self) -> "Waiting": ...


@dataclass(frozen=True, slots=True)
class OwnEnvironment:
    """One environment. `load` is None where nobody counts; `place` is its place in the queue for GPUs."""

    row: Environment
    load: Load | None
    stops_at: datetime | None
    place: tuple[int, int] | None
    gpus: Sequence[Measurement]

    @property
    def handle(self) -> str:
        return str(self.row.ref)


@dataclass(frozen=True, slots=True)
class OwnConnection:
    """One of the user's connections, with its byte counts so far."""

    id: str
    environment: str
    address: str
    channels: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class OwnLook:
    """What is there at one moment; `clock` counts seconds. `error` says what could not be asked."""

    user: str
    at: datetime
    clock: float
    environments: Sequence[OwnEnvironment]
    connections: Sequence[OwnConnection]
    error: str = ""


_SESSIONS: OfEach[TopParts, Shared[list[OwnedSession]]] = shared_of(lambda parts: parts.live_sessions.all())
_SENSORS: OfEach[TopParts, Shared[Sensors]] = shared_of(lambda parts: parts.sensors.read())


class OwnLooks:
    """Looks for everybody: of one user at most one a second, however many terminals show it. Its methods block."""

    def __init__(self, parts: TopParts) -> None:
        self._parts = parts
        self._by_user: dict[str, Shared[OwnLook]] = {}

    def of(self, user: str) -> OwnLook:
        """Look at what is a user's own. Raises: StoreError."""
        if user not in self._by_user and len(self._by_user) >= _USERS_MAX:
            self._by_user.pop(next(iter(self._by_user)))
        return self._by_user.setdefault(user, Shared(lambda: self._look(user))).get()

    def _look(self, user: str) -> OwnLook:
        parts, now = self._parts, datetime.now(UTC)
        rows = parts.table.all(user)
        places: dict[EnvironmentRef, tuple[int, int]] = {}
        if rows and parts.queue_table.waiting(now):
            places = {place.waiter.ref: (place.position, place.length) for place in parts.waiting.places()}
        measured = _SENSORS.of(parts).get().by_uuid() if any(row.gpus for row in rows) else {}
        environments: list[OwnEnvironment] = []
        error = ""
        for row in rows:
            load: Load | None = None
            stops_at: datetime | None = None
            if row.state is EnvironmentState.RUNNING:
                stops_at = parts.rounds.outlook(row).stop_at
                load, error = self._load(row.ref) if not error else (None, error)
            gpus = [measured[gpu] for gpu in row.gpus if gpu in measured]
            environments.append(OwnEnvironment(row, load, stops_at, places.get(row.ref), gpus))
        connections = [
            OwnConnection(one.id, one.environment, one.address, len(one.channels), one.sent_bytes, one.received_bytes)
            for one in (owned.session for owned in _SESSIONS.of(parts).get())
            if one.user == user
        ]
        return OwnLook(user, now, time.monotonic(), environments, connections, error)

    def _load(self, ref: EnvironmentRef) -> tuple[Load | None, str]:
        try:
            return self._parts.environments.load(ref), ""
        except DevgwError as exc:
            return None, exc.message
