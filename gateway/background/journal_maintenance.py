"""The journal's standing duties while the gateway runs: which policy is in force, signed heads, retention, observed.

What each of them does stands in `gateway.audit`; this module only gives them their places and times.
"""

import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.audit.event import Event
from gateway.audit.policy_history import in_force_between, keep, loaded_event
from gateway.audit.retention import prune
from gateway.audit.schedule import HeadKeeper, Sink, to_command, to_file, to_syslog
from gateway.audit.store_comparison import Discrepancy, compare
from gateway.config import AuditSettings
from gateway.errors import ConfigError, DevgwError, JournalError
from gateway.model import Actor
from gateway.policy import LoadedPolicy
from policies.diff import diff
from policies.model import Policy

if TYPE_CHECKING:
    from gateway.app.composition import App

_log = logging.getLogger(__name__)
_GATEWAY = Actor("gateway", "devgw")
_PRUNE_SECONDS = 6 * 3600.0


class Oversight:
    """Begins before anything listens and ends after the last event."""

    def __init__(self, app: "App") -> None:
        self._app = app
        self._heads: HeadKeeper | None = None
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """Write down the policy in force, then sign and prune on schedule. Raises: DevgwError."""
        loaded = self._app.policy.loaded
        require_one_notebook_port(self._app, loaded.policy)
        self._write_down(loaded, self._last_recorded())
        self._begin_duties()

    def join(self, *, has_duties: bool) -> None:
        """Decide by the same policy as the workers that serve already, and take over the duties or leave them.

        Where the file has become faulty since, the policy in force is the last that was written down.

        Raises:
            DevgwError: when there is none.
        """
        try:
            loaded = self._app.policy.loaded
            require_one_notebook_port(self._app, loaded.policy)
        except ConfigError as exc:
            last = self._last_recorded()
            if last is None:
                raise
            _log.error("the policy stays as it was: %s", exc.message)
            self._app.policy.adopt(LoadedPolicy("", last))
        else:
            self._write_down(loaded, loaded.policy)
        if has_duties:
            self._begin_duties()

    def _begin_duties(self) -> None:
        self._heads = self._keeper()
        self._heads.start()
        for work in (self._compare_with_store, self._prune_regularly):
            thread = threading.Thread(target=work, name=f"oversight {work.__name__.strip('_')}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def sign_last(self) -> None:
        """Sign the journal's end once everybody has written what they had to."""
        self._keeper().sign_now()

    def end(self) -> None:
        """Sign the last head; what is appended after this is covered by the next run's first."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if self._heads is not None:
            self._heads.stop()

    def reload_policy(self) -> bool:
        """Take the policy file as it is now; a faulty one, or one that cannot be kept, leaves the old in force."""
        file = self._app.policy.file
        try:
            new = self._app.policy.read()
            require_one_notebook_port(self._app, new.policy)
            self._write_down(new, self._app.policy.policy)
        except (ConfigError, JournalError) as exc:
            _log.error("the policy stays as it was: %s", exc.message)
            self._app.journal.append(Event("policy.refused", _GATEWAY, reason=exc.message, detail={"file": str(file)}))
            return self._follow_others()
        self._app.policy.adopt(new)
        _log.info("policy loaded from %s", file)
        return True

    def _follow_others(self) -> bool:
        """Take what another worker loaded in the moment before the file became faulty, so that all decide alike."""
        last = self._last_recorded() if self._app.settings.server.workers > 1 else None
        if last is None or not diff(self._app.policy.policy, last):
            return False
        self._app.policy.adopt(LoadedPolicy("", last))
        _log.info("policy loaded as another worker wrote it down")
        return True

    def _write_down(self, loaded: LoadedPolicy, old: Policy | None) -> None:
        """Keep the text and journal the change, both durable before the policy decides anything."""
        digest = keep(self._app.settings.policies_dir, loaded.text)
        self._app.journal.append(loaded_event(_GATEWAY, self._app.policy.file, digest, old, loaded.policy))

    def _last_recorded(self) -> Policy | None:
        """Return the policy of the last run, so that a change made while the gateway was down shows as one."""
        now = datetime.now(UTC)
        settings = self._app.settings
        try:
            return in_force_between(settings.journal_dir, settings.policies_dir, now, now)[-1].policy
        except (JournalError, OSError, ValueError, IndexError):
            return None

    def _keeper(self) -> HeadKeeper:
        audit = self._app.settings.audit
        return HeadKeeper(
            self._app.settings.journal_dir,
            self._app.head_key.ensure(self._app.head_name),
            sinks_of(audit),
            interval_seconds=audit.head_interval,
            on_failure=self._note_head_failure,
        )

    def _note_head_failure(self, event: Event) -> None:
        _log.error("journal head: %s", event.reason)
        self._app.journal.submit(event)

    def _compare_with_store(self) -> None:
        """Look for what was put into the database behind the journal's back, and say it in log and journal."""
        try:
            for found in contradictions(self._app):
                _log.error("the database contradicts the journal: %s %s: %s", found.user, found.subject, found.message)
                self._app.journal.append(_contradicted(found))
        except (DevgwError, OSError, ValueError) as exc:
            _log.error("the database could not be compared with the journal: %s", exc)

    def _prune_regularly(self) -> None:
        seconds = self._app.settings.audit.retention
        if not seconds:
            return
        while True:
            try:
                before = datetime.now(UTC) - timedelta(seconds=seconds)
                removed = prune(self._app.journal, self._app.settings.journal_dir, before, _GATEWAY)
                _log.info("pruned %d segments of the journal", len(removed))
            except (DevgwError, OSError) as exc:
                _log.error("the journal could not be pruned: %s", exc)
            if self._ended.wait(_PRUNE_SECONDS):
                return


def contradictions(app: "App") -> tuple[Discrepancy, ...]:
    """Compare the database's keys and doors with the records. Raises: DevgwError, OSError, ValueError."""
    keys = {name: [key.fingerprint for key in several] for name, several in app.users.keys_by_user().items()}
    disabled = [user.name for user in app.users.all() if user.disabled]
    return compare(app.settings.journal_dir, keys, disabled)


def sinks_of(audit: AuditSettings) -> tuple[Sink, ...]:
    """Return where heads are handed to."""
    return (
        *((to_file(Path(audit.head_file)),) if audit.head_file else ()),
        *((to_syslog(),) if audit.head_syslog else ()),
        *((to_command(audit.head_command),) if audit.head_command else ()),
    )


def require_one_notebook_port(app: "App", policy: Policy) -> None:
    """Refuse a policy that means another notebook port than the server. Raises: ConfigError `config.notebook-port`."""
    ours = app.settings.server.notebook_port
    if ours != policy.notebook_port:
        raise ConfigError(
            "config.notebook-port",
            f"server.notebook_port is {ours}, but {app.policy.file} says notebook_port = {policy.notebook_port}",
            "make them the same",
        )


def _contradicted(found: Discrepancy) -> Event:
    detail: dict[str, str | int | float | bool | None] = {
        "kind": found.kind,
        "user": found.user,
        "subject": found.subject,
        "certain": found.certain,
    }
    return Event("store.contradicted", _GATEWAY, reason=found.message, detail=detail)
