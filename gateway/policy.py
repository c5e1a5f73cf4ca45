"""The policy in force: loaded from its file, loaded again when that changes, kept when the new one is faulty."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import policies
from gateway.config import Settings
from gateway.errors import ConfigError, DeniedError
from gateway.model import UserName
from policies.creation import image_denial
from policies.decide import decide
from policies.limits import Allowance, limits_of
from policies.load import PolicyError, parse_policy, read_policy_text
from policies.model import Policy
from policies.requests import Decision, Request
from policies.shared import SharedVolume
from policies.sharing import shared_named


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy together with the very text that it was read from."""

    text: str
    policy: Policy


class PolicyInForce:
    """One policy at a time. Reading it and deciding need no lock: adopting another swaps the whole value."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stamp = self._stamp_now()
        self._loaded: LoadedPolicy | None = None

    @property
    def loaded(self) -> LoadedPolicy:
        """The policy that decides now, with its text. Raises: ConfigError `policy.invalid`."""
        if self._loaded is None:
            self._loaded = self.read()
        return self._loaded

    @property
    def policy(self) -> Policy:
        """The policy that decides now. Raises: ConfigError `policy.invalid`."""
        return self.loaded.policy

    def decide(self, request: Request) -> Decision:
        """Answer a request by the policy in force."""
        return decide(self.policy, request)

    def allowance(self, user: UserName) -> Allowance:
        """Return what the policy lets a user have now."""
        return limits_of(self.policy, user, datetime.now(UTC))

    def shared_named(self, user: UserName) -> tuple[SharedVolume, ...]:
        """Return the shared volumes that a user's roles name now, also those that one denies."""
        return shared_named(self.policy.holders.effective_roles(user, datetime.now(UTC)))

    def refuse_denied_image(self, user: UserName, image: str, digest: str) -> None:
        """Refuse to start from an image that is denied by now. Raises: DeniedError `image.denied`."""
        denial = image_denial(self.policy.holders.effective_roles(user, datetime.now(UTC)), image, digest)
        if denial is not None:
            hint = "'devgw image rollback' or 'promote' moves the channel, 'devgw create --image' chooses another"
            raise DeniedError("image.denied", f"{denial.reason} (rule: {denial.rule})", hint)

    def trusts(self, ca_fingerprint: str) -> bool:
        """Say whether the policy lists this CA for users' certificates."""
        return self.policy.authority_name(ca_fingerprint) is not None

    def has_changed(self) -> bool:
        """Say, once per change, whether the file is another one than before."""
        stamp = self._stamp_now()
        changed, self._stamp = stamp != self._stamp, stamp
        return changed

    def read(self) -> LoadedPolicy:
        """Read the file as it is now; what decides stays the same. Raises: ConfigError `policy.invalid`."""
        try:
            text = read_policy_text(self.file)
            return LoadedPolicy(text, parse_policy(text, str(self.file)))
        except PolicyError as exc:
            raise ConfigError(
                "policy.invalid", str(exc), f"'devgw policy check {self.file}' says what is wrong"
            ) from exc

    def adopt(self, loaded: LoadedPolicy) -> None:
        """Let another policy decide from now on."""
        self._loaded = loaded

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def policy_file(settings: Settings) -> Path:
    """Return the policy in force: the one set, the site's, or the shipped default."""
    site = settings.config_dir / "policy.toml"
    if settings.policy_file is not None:
        return settings.policy_file
    return site if site.exists() else Path(policies.__file__).parent / "default.toml"
