"""The journal's own duties while the gateway serves: heads, pruning, indexes, the database held against it.

What each of them does stands in `gateway.audit`; this module gives them their places and times.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.audit.event import Event
from gateway.audit.head_signing import HeadSigner
from gateway.audit.journal import Journal
from gateway.audit.journal_index import JournalIndex
from gateway.audit.retention import prune
from gateway.audit.schedule import HeadKeeper, Sink, to_command, to_file, to_syslog
from gateway.audit.store_comparison import Discrepancy, compare
from gateway.audit.timestamps import to_timestamp
from gateway.config import AuditSettings
from gateway.errors import DevgwError
from gateway.model import GATEWAY
from gateway.store.users import Users

_log = logging.getLogger(__name__)
_PRUNE_SECONDS = 6 * 3600.0
_INDEX_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """How heads are signed: by whom, where they are handed to, how often."""

    signer: HeadSigner
    sinks: tuple[Sink, ...]
    interval_seconds: float


class JournalMaintenance:
    """Begins before anything listens and ends after the last event."""

    def __init__(
        self,
        journal: Journal,
        heads: HeadPlan,
        contradictions: Callable[[], Iterable[Discrepancy]],
        *,
        retention_seconds: int,
    ) -> None:
        self._journal = journal
        self._plan = heads
        self._contradictions = contradictions
        self._retention_seconds = retention_seconds
        self._heads: HeadKeeper | None = None
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """Sign and prune on schedule, and compare once with the database. Raises: DevgwError."""
        self._plan.signer.ensure_key()
        self._heads = self._keeper()
        self._heads.start()
        for work in (self._compare_with_store, self._prune_regularly, self._index_regularly):
            thread = threading.Thread(target=work, name=f"journal {work.__name__.strip('_')}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def sign_last(self) -> None:
        """Sign the journal's end once everybody has written what they had to: each ends in its own time."""
        try:
            self._keeper().sign_now()
        except DevgwError as exc:
            _log.error("journal head: %s", exc.message)

    def end(self) -> None:
        """Sign the last head; what is appended after this is covered by the next run's first."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if self._heads is not None:
            self._heads.stop()

    def _keeper(self) -> HeadKeeper:
        return HeadKeeper(
            self._plan.signer,
            self._plan.sinks,
            interval_seconds=self._plan.interval_seconds,
            on_failure=self._note_head_failure,
        )

    def _note_head_failure(self, event: Event) -> None:
        _log.error("journal head: %s", event.reason)
        self._journal.submit(event)

    def _compare_with_store(self) -> None:
        """Look for what was put into the database behind the journal's back, and say it in log and journal."""
        try:
            for found in self._contradictions():
                _log.error("the database contradicts the journal: %s %s: %s", found.user, found.subject, found.message)
                self._journal.append(_contradicted(found))
        except (DevgwError, OSError, ValueError) as exc:
            _log.error("the database could not be compared with the journal: %s", exc)

    def _prune_regularly(self) -> None:
        if not self._retention_seconds:
            return
        while True:
            try:
                before = datetime.now(UTC) - timedelta(seconds=self._retention_seconds)
                removal = prune(self._journal, self._plan.signer, before, GATEWAY)
                _log.info("pruned %d segments of the journal", len(removal.paths))
                if removal.note:
                    self._keeper().hand_on(removal.note)
            except (DevgwError, OSError) as exc:
                _log.error("the journal could not be pruned: %s", exc)
            if self._ended.wait(_PRUNE_SECONDS):
                return

    def _index_regularly(self) -> None:
        """Index what was sealed, so that nobody who asks the journal waits for it; not on a full disk."""
        while True:
            try:
                for _one in JournalIndex(self._plan.signer.directory).refresh():
                    if self._ended.is_set() or self._journal.is_short:
                        break
            except OSError as exc:
                _log.error("the journal could not be indexed: %s", exc)
            if self._ended.wait(_INDEX_SECONDS):
                return


def contradictions(users: Users, journal_dir: Path) -> tuple[Discrepancy, ...]:
    """Compare the database's keys and doors with the records. Raises: DevgwError, OSError, ValueError."""
    keys = {name: [key.fingerprint for key in several] for name, several in users.keys_by_user().items()}
    disabled = [user.name for user in users.all() if user.disabled]
    return compare(journal_dir, keys, disabled)


def sinks_of(audit: AuditSettings, timestamps: Path) -> tuple[Sink, ...]:
    """Return where heads are handed to. Raises: JournalError `timestamps.unavailable`."""
    return (
        *((to_file(Path(audit.head_file)),) if audit.head_file else ()),
        *((to_syslog(),) if audit.head_syslog else ()),
        *((to_command(audit.head_command),) if audit.head_command else ()),
        *((to_timestamp(audit.timestamp_url, timestamps),) if audit.timestamp_url else ()),
    )


def _contradicted(found: Discrepancy) -> Event:
    detail: dict[str, str | int | float | bool | None] = {
        "kind": found.kind,
        "user": found.user,
        "subject": found.subject,
        "certain": found.certain,
    }
    return Event("store.contradicted", GATEWAY, reason=found.message, detail=detail)
