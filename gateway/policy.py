"""The policy in force: loaded from its file, loaded again when that changes, kept when the new one is faulty."""

from pathlib import Path

from gateway.errors import ConfigError
from policies.decide import decide
from policies.load import PolicyError, load_policy
from policies.model import Policy
from policies.requests import Decision, Request


class PolicyInForce:
    """One policy at a time. Reading it and deciding need no lock: a reload swaps the whole value."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stamp = self._stamp_now()
        self._policy: Policy | None = None

    @property
    def policy(self) -> Policy:
        """The policy that decides now. Raises: ConfigError `policy.invalid`."""
        if self._policy is None:
            self._policy = self._load()
        return self._policy

    def decide(self, request: Request) -> Decision:
        """Answer a request by the policy in force."""
        return decide(self.policy, request)

    def has_changed(self) -> bool:
        """Say, once per change, whether the file is another one than before."""
        stamp = self._stamp_now()
        changed, self._stamp = stamp != self._stamp, stamp
        return changed

    def reload(self) -> tuple[Policy, Policy]:
        """Take the file's new content; return the old and the new policy.

        Raises:
            ConfigError: `policy.invalid`; the old one stays in force.
        """
        old, new = self.policy, self._load()
        self._policy = new
        return old, new

    def _load(self) -> Policy:
        try:
            return load_policy(self.file)
        except PolicyError as exc:
            raise ConfigError(
                "policy.invalid", str(exc), f"'devgw policy check {self.file}' says what is wrong"
            ) from exc

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
