"""Journals what an administrator does: the act once it is done, or `<noun>.failed` with the reason. Written once."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.audit.event import Event
from gateway.errors import DevgwError
from gateway.gate import Recorder
from gateway.model import Actor


class Recorded:
    """The journal as one person's acts see it. Every call returns when the record is durable."""

    def __init__(self, recorder: Recorder, actor: Actor) -> None:
        self._recorder = recorder
        self.actor = actor

    @contextmanager
    def act(self, code: str, environment: str = "", **detail: str | bool) -> Iterator[None]:
        """Record the block as `code` when it succeeds, as `<noun>.failed` when it raises a DevgwError."""
        with self.failing(code, environment, **detail):
            yield
        self.note(code, environment, **detail)

    @contextmanager
    def failing(self, code: str, environment: str = "", **detail: str | bool) -> Iterator[None]:
        """Record the block as `<noun>.failed` when it raises a DevgwError; success is the caller's to record."""
        try:
            yield
        except DevgwError as exc:
            failed = f"{code.partition('.')[0]}.failed"
            self._write(Event(failed, self.actor, environment, reason=f"{code}: {exc.message}", detail=dict(detail)))
            raise

    def note(self, code: str, environment: str = "", **detail: str | bool) -> None:
        """Record a fact."""
        self._write(Event(code, self.actor, environment, detail=dict(detail)))

    def event(self, event: Event) -> None:
        """Record an event made by one of `audit.events`."""
        self._write(event)

    def _write(self, event: Event) -> None:
        self._recorder.submit(event).result()
