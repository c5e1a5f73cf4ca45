"""Which journal codes came to be during a test: on disk below the test run's directory, and in journals in memory."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.audit.record import parse
from tests.fakes.recorder import SEEN

_CLOCKS = timedelta(seconds=1)
"""By how much a file's time may lie before a record's."""


def codes_since(base: Path, own: Path | None, began: datetime) -> set[str]:
    """Return the codes of records made since a moment, and of all in the test's own directory, whatever their clock."""
    return {code for code, at in [*SEEN, *_on_disk(base, own, began)] if at >= began}


def _on_disk(base: Path, own: Path | None, began: datetime) -> Iterator[tuple[str, datetime]]:
    for path in base.rglob("segment-*.jsonl"):
        if datetime.fromtimestamp(path.stat().st_mtime, UTC) < began - _CLOCKS:
            continue
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                record = parse(line)
            except ValueError:  # the end of a write that is under way, or damage that a test made
                continue
            yield record.code, began if own is not None and path.is_relative_to(own) else record.at
