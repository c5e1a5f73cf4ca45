"""Why: a decision with its rule, and every role that was asked, so that a person can find the line to change."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from policies.decide import decide
from policies.effective_roles import Holding
from policies.limits import limits_of
from policies.model import Policy
from policies.policy_tests.questions import parse_question
from policies.requests import CreateRequest, Decision, EgressHostRequest, Request, SharedRequest, Subject


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, and for each role granted: by which grant, and whether it counts at that moment."""

    question: str
    decision: Decision
    roles: tuple[tuple[str, str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return what `-o json` prints."""
        return {
            "version": 1,
            "question": self.question,
            "allowed": self.decision.allowed,
            "rule": self.decision.rule,
            "reason": self.decision.reason,
            "roles": [{"role": role, "grant": grant, "state": state} for role, grant, state in self.roles],
        }


def request_for(policy: Policy, question: str, subject: Subject, at: datetime) -> Request:
    """Turn a question into a request; what a create question leaves out is the least the user may have.

    An administrator creates, on the host, and environments connect by themselves: such requests carry neither key nor
    address.

    Raises: ValueError, when it is no question.
    """
    allowance = limits_of(policy, subject.user, at)
    image = next(iter(allowance.images), "").replace("*", "").replace("?", "x")
    defaults = {"image": image, "lifetime_seconds": allowance.lifetime_seconds}
    request = parse_question(question, subject, at, defaults=defaults)
    if isinstance(request, EgressHostRequest | SharedRequest):
        return replace(request, subject=Subject(subject.user))
    if not isinstance(request, CreateRequest):
        return request
    request = replace(request, subject=Subject(subject.user))
    if request.gpus and not request.gpu_profiles and allowance.gpu_profiles:
        profile = next((name for name in allowance.gpu_profiles if name in {"full", "*"}), allowance.gpu_profiles[0])
        return replace(request, gpu_profiles=(profile.replace("*", "full"),) * request.gpus)
    return request


def explain(policy: Policy, question: str, subject: Subject, at: datetime) -> Explanation:
    """Answer a question in words. Raises: ValueError, when it is no question."""
    return explain_request(policy, question, request_for(policy, question, subject, at))


def explain_request(policy: Policy, question: str, request: Request) -> Explanation:
    """Answer a request as `decide` does, with the roles it looked at."""
    holdings = policy.holders.holdings(request.subject.user)
    roles = tuple((holding.held.name, holding.rule, _state(holding, request)) for holding in holdings)
    return Explanation(question, decide(policy, request), roles)


def _state(holding: Holding, request: Request) -> str:
    if holding.begins is not None and request.at < holding.begins:
        return f"begins {holding.begins.isoformat()}"
    if holding.ends is not None and request.at >= holding.ends:
        return f"ended {holding.ends.isoformat()}"
    if not holding.held.is_in_hours(request.at):
        return f"outside its hours ({'; '.join(map(str, holding.held.role.hours))})"
    return "in force"
