"""A policy in force from text, exchanged at will: decisions, limits and CAs as the running gateway has them."""

from datetime import UTC, datetime

from gateway.model import UserName
from policies.decide import decide
from policies.limits import Allowance, limits_of
from policies.load import parse_policy
from policies.requests import Decision, Request


class PolicyUnderTest:
    """Stands where `gateway.policy` and `gateway.app.access` stand."""

    def __init__(self, text: str) -> None:
        self.policy = parse_policy(text, "policy.toml")

    def load(self, text: str) -> None:
        self.policy = parse_policy(text, "policy.toml")

    def decide(self, request: Request) -> Decision:
        return decide(self.policy, request)

    def allowance(self, user: UserName) -> Allowance:
        return limits_of(self.policy, user, datetime.now(UTC))

    def trusts(self, ca_fingerprint: str) -> bool:
        return self.policy.authority_name(ca_fingerprint) is not None
