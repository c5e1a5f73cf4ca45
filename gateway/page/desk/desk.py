"""Answers the page's questions: who asks is proven, decided by the policy of this moment, and the act written down."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from gateway.audit.event import new_reference
from gateway.errors import (
    AuthError,
    ConflictError,
    DeniedError,
    DevgwError,
    NodeError,
    NotFoundError,
    QueuedError,
    TimedOutError,
    UsageError,
)
from gateway.page.claim import Claim, Seal
from gateway.page.desk.answers_register import Known
from gateway.page.desk.live_accounts import LiveAccounts
from gateway.page.desk.site import Asker, Site
from gateway.page.wire import Answer, Fault, Question
from gateway.readings import read_anew
from policies.page import level_held
from policies.requests import PageRequest

_STATUS: Mapping[type[DevgwError], HTTPStatus] = {
    UsageError: HTTPStatus.BAD_REQUEST,
    NotFoundError: HTTPStatus.NOT_FOUND,
    QueuedError: HTTPStatus.CONFLICT,
    ConflictError: HTTPStatus.CONFLICT,
    DeniedError: HTTPStatus.FORBIDDEN,
    AuthError: HTTPStatus.FORBIDDEN,
    TimedOutError: HTTPStatus.GATEWAY_TIMEOUT,
    NodeError: HTTPStatus.BAD_GATEWAY,
}
_log = logging.getLogger(__name__)


class Desk:
    """One gateway's answers. Its methods block, and may be called from several threads."""

    def __init__(self, site: Site, seal: Seal, known: Mapping[str, Known]) -> None:
        self._site = site
        self._seal = seal
        self._known = known
        self._live_accounts = LiveAccounts(site.database, site.users)

    def answer(self, question: Question) -> Answer:
        """Answer one question, or say why not."""
        try:
            return {"number": question["number"], "answer": self._answer(question)}
        except DevgwError as exc:
            status = next((code for kind, code in _STATUS.items() if isinstance(exc, kind)), HTTPStatus.CONFLICT)
            return {
                "number": question["number"],
                "fault": Fault(code=exc.code, message=exc.message, hint=exc.hint, status=status),
            }
        except Exception:  # noqa: BLE001 - whatever it was, the others are answered
            reference = new_reference()
            _log.exception("'%s' could not be answered (reference %s)", question.get("ask"), reference)
            said = f"internal error (reference {reference})"
            fault: Fault = {"code": "internal", "message": said, "hint": "tell an administrator", "status": 500}
            return {"number": question["number"], "fault": fault}

    def _answer(self, question: Question) -> Any:
        known = self._known.get(question["ask"])
        if known is None:
            raise NotFoundError("page.no-answer", f"nothing answers {question['ask'][:60]!r}")
        claim = self._seal.opened(question["claim"])
        values = question["values"]
        asker = self._asker(claim, known, question)
        try:
            return known.give(self._site, asker, **values)
        except TypeError as exc:
            if exc.__traceback__ is not None and exc.__traceback__.tb_next is None:  # not taken by its signature
                raise UsageError("page.bad-question", f"{question['ask']} is not asked like that") from exc
            raise
        finally:
            if known.journaled:  # it may have changed something, also where it failed half-way
                read_anew()

    def _asker(self, claim: Claim, known: Known, question: Question) -> Asker:
        """Hold a claim against users, keys and policy of this moment, a live part's against users of the last second.

        Raises: AuthError, DeniedError.
        """
        subject, now, act, values = claim.subject, datetime.now(UTC), question["ask"], question["values"]
        is_live = question["live"] and not known.journaled
        user, keys = self._live_accounts.get(subject.user) if is_live else self._site.users.account(subject.user)
        if user is None or user.disabled:
            raise AuthError("page.no-user", "there is no such user any more, or the user is disabled")
        if user.closed_because:
            raise AuthError("page.no-user", user.closed_because)
        if subject.certificate is None and subject.key_fingerprint not in {key.fingerprint for key in keys}:
            raise AuthError("page.no-key", "the key of this connection was removed")
        target = ", ".join(f"{name}={value}" for name, value in values.items() if name in _TARGETS)[:200]
        request = PageRequest(subject, now, known.level, act, target)
        asker = Asker(subject, claim.environment, claim.connection, self._level(subject.user, now))
        decision = self._site.policy.decide(request)
        if known.journaled or not decision.allowed:
            self._site.gate.require(request, asker.actor, claim.environment)
        return asker

    def _level(self, user: str, now: datetime) -> Any:
        return level_held(self._site.policy.policy.holders.effective_roles(user, now))[0]


_TARGETS = frozenset({"name", "user", "handle", "fingerprint", "id", "gpu", "recording", "text"})
