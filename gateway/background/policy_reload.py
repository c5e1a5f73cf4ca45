"""Which policy is in force while the gateway serves: written down before it decides, read anew when it changes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.audit.event import Event
from gateway.audit.policy_history import in_force_between, keep, loaded_event
from gateway.errors import ConfigError, JournalError
from gateway.gate import Recorder
from gateway.model import GATEWAY
from gateway.policy import LoadedPolicy, PolicyInForce
from policies.diff import diff
from policies.model import Policy

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PolicyArchive:
    """Where the texts of policies are kept, and the journal that says which was in force when."""

    journal_dir: Path
    policies_dir: Path

    def last(self) -> Policy | None:
        """Return the policy of the last run, so that a change made while the gateway was down shows as one."""
        now = datetime.now(UTC)
        try:
            return in_force_between(self.journal_dir, self.policies_dir, now, now)[-1].policy
        except (JournalError, OSError, ValueError, IndexError):
            return None


class PolicyReloader:
    """Begins before anything listens. `has_peers`: other processes of this gateway follow the same file."""

    def __init__(
        self,
        policy: PolicyInForce,
        archive: PolicyArchive,
        recorder: Recorder,
        *,
        notebook_port: int,
        has_peers: Callable[[], bool] = lambda: False,
    ) -> None:
        self._policy = policy
        self._archive = archive
        self._recorder = recorder
        self._notebook_port = notebook_port
        self._has_peers = has_peers

    def begin(self) -> None:
        """Write down the policy in force. Raises: DevgwError."""
        loaded = self._policy.loaded
        self._require_one_notebook_port(loaded.policy)
        self._write_down(loaded, self._archive.last())

    def join(self) -> None:
        """Decide by the same policy as the workers that serve already.

        Where the file has become faulty since, the policy in force is the last that was written down.

        Raises:
            DevgwError: when there is none.
        """
        try:
            loaded = self._policy.loaded
            self._require_one_notebook_port(loaded.policy)
        except ConfigError as exc:
            last = self._archive.last()
            if last is None:
                raise
            _log.error("the policy stays as it was: %s", exc.message)
            self._policy.adopt(LoadedPolicy("", last))
        else:
            self._write_down(loaded, loaded.policy)

    def reload(self) -> bool:
        """Take the policy file as it is now; a faulty one, or one that cannot be kept, leaves the old in force."""
        try:
            new = self._policy.read()
            self._require_one_notebook_port(new.policy)
            self._write_down(new, self._policy.policy)
        except (ConfigError, JournalError) as exc:
            _log.error("the policy stays as it was: %s", exc.message)
            detail: dict[str, str | int | float | bool | None] = {"file": str(self._policy.file)}
            self._recorder.submit(Event("policy.refused", GATEWAY, reason=exc.message, detail=detail)).result()
            return self._follow_peers()
        self._policy.adopt(new)
        _log.info("policy loaded from %s", self._policy.file)
        return True

    def reload_if_changed(self) -> bool:
        """Reload when the file is another one than at the last look; say whether another policy decides now."""
        return self._policy.has_changed() and self.reload()

    def _follow_peers(self) -> bool:
        """Take what another worker loaded in the moment before the file became faulty, so that all decide alike."""
        last = self._archive.last() if self._has_peers() else None
        if last is None or not diff(self._policy.policy, last):
            return False
        self._policy.adopt(LoadedPolicy("", last))
        _log.info("policy loaded as another worker wrote it down")
        return True

    def _write_down(self, loaded: LoadedPolicy, old: Policy | None) -> None:
        """Keep the text and journal the change, both durable before the policy decides anything."""
        digest = keep(self._archive.policies_dir, loaded.text)
        event = loaded_event(GATEWAY, self._policy.file, digest, old, loaded.policy)
        self._recorder.submit(event).result()

    def _require_one_notebook_port(self, policy: Policy) -> None:
        """Refuse a policy that means another notebook port than the server. Raises: `config.notebook-port`."""
        if self._notebook_port != policy.notebook_port:
            raise ConfigError(
                "config.notebook-port",
                f"server.notebook_port is {self._notebook_port}, but {self._policy.file} says "
                f"notebook_port = {policy.notebook_port}",
                "make them the same",
            )
