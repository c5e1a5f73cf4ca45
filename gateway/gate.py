"""Decide, then journal: the only path by which anything is allowed. Acting on the answer is the caller's."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.audit.event import Event
from gateway.errors import DeniedError
from gateway.model import Actor
from policies.requests import Decision, Request

Decide = Callable[[Request], Decision]
Detail = dict[str, str | int | float | bool | None]
_LONGEST_WAIT_SECONDS = 5.0


class Recorder(Protocol):
    """Where decisions are written. The future is done when the event is durable, or carries a JournalError."""

    def submit(self, event: Event) -> "Future[None]":
        """Queue an event and say when it is on disk."""


class Budget(Protocol):
    """How much one user may have written down. `gateway.audit.event_budget` says what happens beyond."""

    def debt_seconds(self, actor: Actor) -> float:
        """Return how long a user's next event should wait."""

    def hold_seconds(self, actor: Actor) -> float:
        """Return how long what a user sends, and what causes events, should not be read."""

    def charge(self, actor: Actor, size_bytes: int) -> None:
        """Take from a user's budget ahead of an event, or give back."""


class NoBudget:
    """Lets everything be written at once."""

    def debt_seconds(self, actor: Actor) -> float:  # noqa: ARG002 - nobody waits
        return 0.0

    def hold_seconds(self, actor: Actor) -> float:  # noqa: ARG002 - nobody waits
        return 0.0

    def charge(self, actor: Actor, size_bytes: int) -> None:
        """Count nothing."""


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

    def __init__(self, decide: Decide, recorder: Recorder, budget: Budget | None = None) -> None:
        self._decide = decide
        self._recorder = recorder
        self._budget = budget or NoBudget()

    def ask(self, request: Request, actor: Actor, environment: str = "") -> Answer:
        """Decide and wait until the decision is durable. Raises: JournalError."""
        answer, durable = self._answer(request, actor, environment)
        durable.result()
        return answer

    async def ask_async(self, request: Request, actor: Actor, environment: str = "") -> Answer:
        """The same for the event loop. Who asks faster than the journal may grow for one user, waits."""
        await self._wait_for_budget(actor)
        answer, durable = self._answer(request, actor, environment)
        await asyncio.wrap_future(durable)
        return answer

    async def ask_all_async(self, requests: Sequence[Request], actor: Actor, environment: str = "") -> list[bool]:
        """Decide several requests of one kind, and write one event for all that were allowed, one for the others.

        Raises: JournalError.
        """
        if not requests:
            return []
        await self._wait_for_budget(actor)
        decisions = [self._decide(request) for request in requests]
        pairs = list(zip(requests, decisions, strict=True))
        groups = [[pair for pair in pairs if pair[1].allowed is allowed] for allowed in (True, False)]
        events = [_event_of(group, actor, environment) for group in groups if group]
        await asyncio.gather(*(asyncio.wrap_future(self._recorder.submit(event)) for event in events))
        return [decision.allowed for decision in decisions]

    async def _wait_for_budget(self, actor: Actor) -> None:
        while (left := self._budget.debt_seconds(actor)) > 0:  # noqa: ASYNC110 - time pays it off, nobody tells
            await asyncio.sleep(min(left, _LONGEST_WAIT_SECONDS))

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
        event = _event_of([(request, decision)], actor, environment)
        return Answer(decision, event.reference), self._recorder.submit(event)


def _event_of(pairs: Sequence[tuple[Request, Decision]], actor: Actor, environment: str) -> Event:
    """Make the event of decisions that came out alike; of several, `count` and `names` say which."""
    request, decision = pairs[0]
    outcome: Literal["allowed", "denied"] = "allowed" if decision.allowed else "denied"
    detail = _detail_of(request)
    if len(pairs) > 1:
        names = [str(_detail_of(one).get("name", "")) for one, _decision in pairs]
        detail |= {"names": ",".join(names), "count": len(pairs)}
    return Event(
        code=f"{request.action}.{outcome}",
        actor=actor,
        environment=environment,
        decision=outcome,
        rule="; ".join(dict.fromkeys(one.rule for _request, one in pairs)),
        reason=decision.reason,
        detail=detail,
    )


def _detail_of(request: Request) -> Detail:
    """Take the request's own fields; who asked and when stand in the event already."""
    fields = {name: getattr(request, name) for name in request.__dataclass_fields__ if name not in {"subject", "at"}}
    return {name: ",".join(map(str, value)) if isinstance(value, tuple) else value for name, value in fields.items()}
