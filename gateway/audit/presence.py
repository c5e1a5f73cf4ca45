"""Who was in an environment and when it ran, as the journal tells it.

A session or forward lasts from its record of opening to that of its closing, or to what ended it without one.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import merge
from pathlib import Path

from gateway.audit.read import Filter, of_codes, settled_before, stream
from gateway.audit.record import Record
from gateway.audit.segments import journals_in

_CHANNELS = ("session.opened", "session.closed", "forward.opened", "forward.closed")
_CONNECTIONS = ("connection.closed", "session.revoked")
STARTS = ("environment.started", "environment.woken", "environment.healed", "environment.adopted")
"""An environment runs from then on, with what the record says is mounted in it."""
_STOPS = ("environment.stopped", "environment.deleted", "environment.renamed")


@dataclass(slots=True)
class Stay:
    """A session or forward. `until` is None where no record ends it; `revoked` says why the gateway ended it."""

    opened: Record
    until: datetime | None = None
    revoked: str = ""

    def touches(self, begin: datetime, end: datetime) -> bool:
        """Say whether some of it lies in a span."""
        return self.opened.at < end and (self.until is None or self.until > begin)


@dataclass(frozen=True, slots=True)
class Run:
    """A time in which an environment ran. Its programs could read what it had mounted, with nobody connected too."""

    environment: str
    since: datetime
    until: datetime | None
    started_by: str


def runs_of(journal: Path, environments: AbstractSet[str], until: datetime) -> list[Run]:
    """Return when environments ran before a moment, started by hand or woken. Raises: OSError, ValueError."""
    runs: list[Run] = []
    going: dict[str, int] = {}
    for record in of_codes(journal, (*STARTS, *_STOPS), until, owners=_owners(environments)):
        name = record.environment
        if name not in environments:
            continue
        if record.code in STARTS and name not in going:
            going[name] = len(runs)
            runs.append(Run(name, record.at, None, record.actor["name"]))
        elif record.code in _STOPS and name in going:
            place = going.pop(name)
            runs[place] = replace(runs[place], until=record.at)
    return runs


def last_empty_start(journal: Path, since: datetime, until: datetime) -> int:
    """Return the number of the last start of a gateway before which all is older than a moment, clock jumps included.

    A gateway that starts has nobody in it: who is connected later came later. 0 where none is known. Raises: OSError,
    ValueError.
    """
    settled = settled_before(journal, since)
    starts = stream(journal, Filter(action="gateway.started", until=until)) if settled else ()
    return max((one.number for one in starts if _is_alone(one) and one.number <= settled), default=0)


def _is_alone(started: Record) -> bool:
    """Say whether a gateway that started had no other beside it: neither a worker nor another of its site."""
    return not {"worker", "gateway"} & started.detail.keys()


def _owners(environments: AbstractSet[str]) -> set[str]:
    return {name.partition("+")[0] for name in environments}


def stays_in(journal: Path, environments: AbstractSet[str], since: datetime, until: datetime) -> list[Stay]:
    """Return the stays in environments that may reach into a span, in their order. Raises: OSError, ValueError.

    What has no closing of its own ends with its connection, with its environment, or with the gateway: one that
    starts has nobody in it. A worker beside others says so of itself alone: there a stay whose end was lost counts
    as open until its environment stops.
    """
    stays = _Stays()
    begin = last_empty_start(journal, since, until)
    codes = (*_CHANNELS, *_CONNECTIONS, *_STOPS)
    theirs = of_codes(journal, codes, until, owners=_owners(environments), after=begin)
    starts = of_codes(journal, ("gateway.started",), until, after=begin)
    by_number = not journals_in(journal)
    for record in merge(starts, theirs, key=lambda one: one.number if by_number else one.at):
        if record.code == "gateway.started" and _is_alone(record):
            stays.end(lambda _stay: True, record)
        elif record.environment in environments:
            stays.note(record)
    return stays.all


class _Stays:
    """What was opened and, of that, what is still open."""

    def __init__(self) -> None:
        self.all: list[Stay] = []
        self._going: dict[str, dict[tuple[str, str, str], list[Stay]]] = {}
        """By connection: of years of stays few are open at a time, and one connection's are asked for at each end."""
        self._revoked: dict[str, str] = {}

    def note(self, record: Record) -> None:
        """Follow one record of an environment, of a connection to it, or of a channel."""
        connection = str(record.detail.get("connection") or "")
        if record.code in _STOPS:
            self.end(lambda stay: stay.opened.environment == record.environment, record)
        elif record.code == "session.revoked":
            self._revoke(connection, record)
        elif record.code == "connection.closed":
            for several in self._going.pop(connection, {}).values() if connection else ():
                for stay in several:
                    stay.until = record.at
            self._revoked.pop(connection, None)
        else:
            self._channel(connection, record)

    def end(self, which: Callable[[Stay], bool], record: Record) -> None:
        """Let those end that are meant."""
        for connection, kinds in list(self._going.items()):
            for key, several in list(kinds.items()):
                for stay in [stay for stay in several if which(stay)]:
                    several.remove(stay)
                    stay.until = record.at
                self._forget(connection, key)

    def _forget(self, connection: str, key: tuple[str, str, str]) -> None:
        """Keep nothing of what has no stay any more."""
        if not self._going[connection][key]:
            del self._going[connection][key]
        if not self._going[connection]:
            del self._going[connection]

    def _channel(self, connection: str, record: Record) -> None:
        """Pair an opening with its closing: oldest with oldest of one connection, environment, user and kind."""
        kind, _, what = record.code.partition(".")
        key = (record.environment, record.actor["name"], kind)
        if what == "opened":
            self.all.append(Stay(record))
            self._going.setdefault(connection, {}).setdefault(key, []).append(self.all[-1])
        elif several := self._going.get(connection, {}).get(key):
            stay = several.pop(0)
            stay.until = record.at
            self._forget(connection, key)
            because = self._revoked.get(connection, "")
            if because and record.reason.startswith(because):
                stay.revoked = record.reason

    def _revoke(self, connection: str, record: Record) -> None:
        """Note why the gateway ends a connection, or one channel on it, whose closing gives this reason too."""
        self._revoked[connection] = record.reason
        if record.detail.get("what") == "connection":
            for several in self._going.get(connection, {}).values():
                for stay in several:
                    stay.revoked = f"{record.reason} (rule: {record.rule})"
