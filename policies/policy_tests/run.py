"""Running a policy's own tests. A policy that fails one is not loaded, and the running one stays."""

from dataclasses import dataclass, replace
from typing import Any

from policies.decide import decide
from policies.explain import request_for
from policies.model import Policy
from policies.policy_tests.assertions import ANY_MOMENT, Assertion
from policies.reach import best_certificate, best_subject
from policies.requests import Decision


@dataclass(frozen=True, slots=True)
class PolicyTestResult:
    """One question of one test and how it went."""

    key: str
    place: str
    line: int
    user: str
    question: str
    must_allow: bool
    decision: Decision
    why: str = ""

    @property
    def passed(self) -> bool:
        return self.decision.allowed == self.must_allow

    def as_dict(self) -> dict[str, Any]:
        """Return what `-o json` prints."""
        return {
            "test": self.key,
            "place": self.place,
            "user": self.user,
            "question": self.question,
            "expected": "allowed" if self.must_allow else "denied",
            "passed": self.passed,
            "rule": self.decision.rule,
            "reason": self.decision.reason,
        }


def run_policy_tests(policy: Policy) -> tuple[PolicyTestResult, ...]:
    """Run every `[[tests]]` table of a policy."""
    return tuple(result for index, test in enumerate(policy.tests) for result in _run(policy, index, test))


def _run(policy: Policy, index: int, test: Assertion) -> list[PolicyTestResult]:
    key = f"tests.{index}"
    holdings = policy.holders.holdings(test.user)
    if test.at is None and any(holding.is_timed for holding in holdings):
        fault = Decision(False, "tests", f"the roles of {test.user} depend on the time: the test must say 'at'")
        return [
            PolicyTestResult(
                key,
                policy.place(key),
                policy.line(key),
                test.user,
                "at",
                must_allow=True,
                decision=fault,
                why=test.reason,
            )
        ]
    at = test.at or ANY_MOMENT
    subject = replace(
        test.subject,
        address=test.address or best_subject(policy, test.user, at).address,
        certificate=best_certificate(policy, test.user, at) if test.certificate else None,
    )
    return [
        PolicyTestResult(
            key,
            policy.place(f"{key}.{'allow' if must_allow else 'deny'}"),
            policy.line(f"{key}.{'allow' if must_allow else 'deny'}"),
            test.user,
            question,
            must_allow,
            decide(policy, request_for(policy, question, subject, at)),
            test.reason,
        )
        for must_allow, questions in ((True, test.allow), (False, test.deny))
        for question in questions
    ]
