"""What the gateways of a site count of sources that log in, in common: each adds to what all have counted.

Times are seconds of Unix time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select

from gateway.store.database import Database
from gateway.store.schema import LOGIN_TALLIES

_COLUMNS = LOGIN_TALLIES.c
_AT_ONCE = 500
"""How many sources one statement names: databases bound their parameters."""


@dataclass(frozen=True, slots=True)
class TallyRow:
    """What all have counted of one source. All zero: forgotten."""

    failures: int = 0
    since: float = 0.0
    banned_until: float = 0.0
    bans: int = 0


@dataclass(frozen=True, slots=True)
class TallyChange:
    """What one gateway has to add: `row` stands for itself, or only its failures count, added to those of all."""

    row: TallyRow
    adds: bool = False


class LoginTallyTable:
    """Rows of one kind, such as failures."""

    def __init__(self, database: Database, kind: str) -> None:
        self._database = database
        self._kind = kind

    def add(self, changes: Mapping[str, TallyChange], now: float) -> None:
        """Write changes of sources, as one. A ban that another gateway began meanwhile is never made shorter."""
        sources = list(changes)
        with self._database.transaction() as connection:
            newest = connection.execute(select(func.max(_COLUMNS.change))).scalar() or 0
            for start in range(0, len(sources), _AT_ONCE):
                some = sources[start : start + _AT_ONCE]
                known = self._known(connection, some)
                rows = [
                    {"kind": self._kind, "source": source, "change": number, "changed_at": now}
                    | asdict(_joined(known.get(source, TallyRow()), changes[source]))
                    for number, source in enumerate(some, start=newest + start + 1)
                ]
                connection.execute(delete(LOGIN_TALLIES).where(self._is_one_of(some)))
                connection.execute(insert(LOGIN_TALLIES), rows)

    def _known(self, connection: Connection, sources: Sequence[str]) -> dict[str, TallyRow]:
        found = connection.execute(select(LOGIN_TALLIES).where(self._is_one_of(sources)))
        return {row.source: TallyRow(row.failures, row.since, row.banned_until, row.bans) for row in found}

    def _is_one_of(self, sources: Sequence[str]) -> ColumnElement[bool]:
        return and_(_COLUMNS.kind == self._kind, _COLUMNS.source.in_(sources))

    def since(self, change: int) -> tuple[int, list[tuple[str, TallyRow]]]:
        """Return what was written after a change, oldest first, and the number of the last one."""
        query = (
            select(LOGIN_TALLIES).where(_COLUMNS.kind == self._kind, _COLUMNS.change > change).order_by(_COLUMNS.change)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        news = [(row.source, TallyRow(row.failures, row.since, row.banned_until, row.bans)) for row in rows]
        return (rows[-1].change if rows else change), news

    def forget(self, before: float, keep: int) -> None:
        """Drop what was last written before a moment, and all but the `keep` newest."""
        of_kind = _COLUMNS.kind == self._kind
        with self._database.transaction() as connection:
            connection.execute(delete(LOGIN_TALLIES).where(of_kind, _COLUMNS.changed_at < before))
            over = select(_COLUMNS.change).where(of_kind).order_by(_COLUMNS.change.desc()).offset(keep).limit(1)
            oldest = connection.execute(over).scalar()
            if oldest is not None:
                connection.execute(delete(LOGIN_TALLIES).where(of_kind, _COLUMNS.change <= oldest))


def _joined(known: TallyRow, change: TallyChange) -> TallyRow:
    row = change.row
    if change.adds and known.since:
        return TallyRow(known.failures + row.failures, known.since, known.banned_until, known.bans)
    if change.adds or row == TallyRow():
        return row
    return TallyRow(row.failures, row.since, max(row.banned_until, known.banned_until), max(row.bans, known.bans))
