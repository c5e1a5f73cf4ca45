"""Decide, then journal: the only path by which anything is allowed. Acting on the answer is the caller's."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from gateway.audit.event import Event
from gateway.errors import DeniedError
from gateway.model import Actor
from policies.requests import Decision, Request

Decide = Callable[[Request], Decision]


class Recorder(Protocol):
    """Where decisions are written. The future is done when the event is durable, or carries a JournalError."""

    def submit(self, event: Event) -> "Future[None]":
        """Queue an event and say when it is on disk."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision together with the reference id under which the journal holds it."""

    decision: Decision
    reference: str

    @property
    def allowed(self) -> bool:
        return self.decision.allowed

    def __str__(self) -> str:
        return f"{self.decision.reason} (rule: {self.decision.rule}; reference {self.reference})"


class Gate:
    """Joins a policy with the journal.

    A decision that cannot be journaled is not given: the JournalError rises instead.
    """

    def __init__(self, decide: Decide, recorder: Recorder) -> None:
        self._decide = decide
        self._recorder = recorder

    def ask(self, request: Request, actor: Actor, environment: str = "") -> Answer:
        """Decide and wait until the decision is durable. Raises: JournalError."""
        answer, durable = self._answer(request, actor, environment)
        durable.result()
        return answer

    async def ask_async(self, request: Request, actor: Actor, environment: str = "") -> Answer:
        """The same for the event loop."""
        answer, durable = self._answer(request, actor, environment)
        await asyncio.wrap_future(durable)
        return answer

    def require(self, request: Request, actor: Actor, environment: str = "") -> Answer:
        """Decide and raise a refusal. Raises: DeniedError `policy.denied`, JournalError."""
        answer = self.ask(request, actor, environment)
        if not answer.allowed:
            raise DeniedError(
                "policy.denied",
                str(answer),
                f"'devgw policy explain {request.subject.user} {request.action}' shows why",
            )
        return answer

    def _answer(self, request: Request, actor: Actor, environment: str) -> tuple[Answer, "Future[None]"]:
        decision = self._decide(request)
        event = Event(
            code=f"{request.action}.{'allowed' if decision.allowed else 'denied'}",
            actor=actor,
            environment=environment,
            decision="allowed" if decision.allowed else "denied",
            rule=decision.rule,
            reason=decision.reason,
            detail=_detail_of(request),
        )
        return Answer(decision, event.reference), self._recorder.submit(event)


def _detail_of(request: Request) -> dict[str, str | int | float | bool | None]:
    """Take the request's own fields; who asked and when stand in the event already."""
    fields = {name: getattr(request, name) for name in request.__dataclass_fields__ if name not in {"subject", "at"}}
    return {name: ",".join(map(str, value)) if isinstance(value, tuple) else value for name, value in fields.items()}
