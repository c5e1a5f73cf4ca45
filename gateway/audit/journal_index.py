"""The indexes of a journal's sealed segments: `index/` in its directory, made when missing, replaced when stale.

Whoever may not write there reads without. The newest segment has none: it is still being written to.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.audit.segment_index import IndexFault, SegmentIndex, build
from gateway.audit.segments import Segment, segments

_log = logging.getLogger(__name__)
INDEX_DIRECTORY = "index"
FORGED = (IndexFault, KeyError, TypeError, ValueError, IndexError)
"""What an index raises that is damaged, or that somebody made up."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What became of one segment's index: `made`, `was there`, `differed` (and was replaced), `not made`."""

    segment: str
    outcome: str
    size_bytes: int


class JournalIndex:
    """Hands out the index of a segment, and keeps the files."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._directory = journal / INDEX_DIRECTORY

    def known(self, segment: Segment) -> SegmentIndex | None:
        """Return the index that is there, if it is of the segment as it is now."""
        try:
            return SegmentIndex(self._path(segment), segment.path)
        except (*FORGED, OSError):
            return None

    def of(self, segment: Segment) -> SegmentIndex | None:
        """Return the index, made now if need be; None where it cannot be made or kept."""
        index = self.known(segment)
        if index is None and self._may_write():
            with suppress(OSError, ValueError):
                self._keep(segment, build(segment.path))
                return self.known(segment)
        return index

    def refresh(self, *, anew: bool = False) -> Iterator[Refreshed]:
        """Make what is missing or stale, all of it with `anew`, and remove what belongs to no segment any more.

        Yields as each is done, so that a caller may stop in between. Raises: OSError, where the journal cannot be read.
        """
        sealed = segments(self._journal)[:-1]
        for segment in sealed:
            yield self._refresh(segment, anew=anew)
        self._remove_strangers()

    def _refresh(self, segment: Segment, *, anew: bool) -> Refreshed:
        path, known = self._path(segment), self.known(segment)
        if known is not None and not anew:
            return Refreshed(segment.path.name, "was there", path.stat().st_size)
        try:
            content = build(segment.path)
            if known is not None and path.read_bytes() == content:
                return Refreshed(segment.path.name, "was there", len(content))
            self._keep(segment, content)
        except (OSError, ValueError) as exc:
            _log.info("no index of %s: %s", segment.path.name, exc)
            return Refreshed(segment.path.name, "not made", 0)
        return Refreshed(segment.path.name, "differed" if known is not None else "made", len(content))

    def _remove_strangers(self) -> None:
        """Remove the indexes of segments that were pruned, and what a crash left half written."""
        theirs = {self._path(segment).name for segment in segments(self._journal)}
        with suppress(OSError):
            for path in self._directory.iterdir():
                if path.name not in theirs and not path.name.endswith(f".{os.getpid()}"):
                    path.unlink(missing_ok=True)

    def _path(self, segment: Segment) -> Path:
        return self._directory / f"{segment.path.stem}.idx"

    def _may_write(self) -> bool:
        place = self._directory if self._directory.is_dir() else self._journal
        return os.access(place, os.W_OK | os.X_OK)

    def _keep(self, segment: Segment, content: bytes) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = self._path(segment)
        aside = path.with_name(f"{path.name}.{threading.get_ident()}.{os.getpid()}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(aside, flags, 0o600), "wb") as file:
                file.write(content)
            self._give_to_owner(aside)
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    def _give_to_owner(self, path: Path) -> None:
        if os.geteuid() == 0:
            owner = self._journal.stat()
            for one in (self._directory, path):
                os.chown(one, owner.st_uid, owner.st_gid)
