"""Images as rows: where each came from, and which one each channel names now and named before.

What images there are at all, the engine says; a row outlives its image, so that what ran can be told later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Row, insert, select, update

from gateway.errors import ConflictError
from gateway.store.database import Database
from gateway.store.schema import CHANNEL_MOVES, IMAGES

Origin = Literal["built", "pulled", "imported"]
MoveKind = Literal["built", "promoted", "found"]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """Where an image came from: `source` is a registry's reference, a file or a profile."""

    digest: str
    origin: Origin
    source: str
    at: datetime
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ChannelMove:
    """A channel began to name an image. `found` is what it named when an administrator first moved it.

    One that was rolled back has `undone_at`; the last one that was not is what the channel names.
    """

    channel: str
    digest: str
    kind: MoveKind
    at: datetime
    by: str
    reason: str = ""
    undone_at: datetime | None = None
    undone_by: str = ""
    undone_reason: str = ""
    id: int = 0


class ImageTable:
    """Rows of images and of the moves of channels."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: ImageRecord) -> None:
        """Remember where an image came from; the first word on it stays."""
        with self._database.transaction() as connection:
            known = connection.execute(select(IMAGES.c.digest).where(IMAGES.c.digest == record.digest)).one_or_none()
            if known is None:
                row = {name: getattr(record, name) for name in ("digest", "origin", "source", "at", "by", "reason")}
                connection.execute(insert(IMAGES).values(**row))

    def all(self) -> dict[str, ImageRecord]:
        """Return every image that devgw built, pulled or imported, also those that are gone."""
        with self._database.reading() as connection:
            rows = connection.execute(select(IMAGES)).all()
        return {row.digest: ImageRecord(*row) for row in rows}

    def move(self, *moves: ChannelMove) -> None:
        """Let a channel name another image: one move, or with it what the channel named before any was written."""
        with self._database.transaction() as connection:
            for move in moves:
                row = {name: getattr(move, name) for name in ("channel", "digest", "kind", "at", "by", "reason")}
                connection.execute(insert(CHANNEL_MOVES).values(**row))

    def undo(self, move: ChannelMove, at: datetime, by: str, reason: str) -> None:
        """Take a move back. Raises: ConflictError `image.channel-moved`, where somebody else did so just now."""
        with self._database.transaction() as connection:
            mine = (CHANNEL_MOVES.c.id == move.id) & CHANNEL_MOVES.c.undone_at.is_(None)
            later = (CHANNEL_MOVES.c.channel == move.channel) & (CHANNEL_MOVES.c.id > move.id)
            newer = connection.execute(
                select(CHANNEL_MOVES.c.id).where(later & CHANNEL_MOVES.c.undone_at.is_(None))
            ).first()
            values = {"undone_at": at, "undone_by": by, "undone_reason": reason}
            changed = connection.execute(update(CHANNEL_MOVES).where(mine).values(**values)).rowcount
            if newer is not None or not changed:
                message = f"somebody else moved the channel {move.channel} meanwhile"
                raise ConflictError("image.channel-moved", message, f"'devgw image show {move.channel}', then again")

    def moves(self, channel: str | None = None) -> Sequence[ChannelMove]:
        """Return the moves of one channel or of all, the oldest first, those taken back too."""
        query = select(CHANNEL_MOVES).order_by(CHANNEL_MOVES.c.id)
        if channel is not None:
            query = query.where(CHANNEL_MOVES.c.channel == channel)
        with self._database.reading() as connection:
            return [_move(row) for row in connection.execute(query)]


def standing(moves: Sequence[ChannelMove]) -> list[ChannelMove]:
    """Return the moves that were not taken back; the last one says what the channel names."""
    return [move for move in moves if move.undone_at is None]


def _move(row: Row[tuple[object, ...]]) -> ChannelMove:
    return ChannelMove(**dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's public name
