"""What the policy in force says beside its decisions, as the SSH server asks for it."""

from datetime import UTC, datetime

from gateway.model import UserName
from gateway.policy import PolicyInForce
from policies.limits import Allowance, limits_of


class PolicyAccess:
    """Numbers, recording and CAs of the policy of this moment."""

    def __init__(self, policy: PolicyInForce) -> None:
        self._policy = policy

    def allowance(self, user: UserName) -> Allowance:
        return limits_of(self._policy.policy, user, datetime.now(UTC))

    def trusts(self, ca_fingerprint: str) -> bool:
        return self._policy.policy.authority_name(ca_fingerprint) is not None
