"""Journals what an administrator does: the act once it is done, or `<noun>.failed` with the reason. Written once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.audit.event import Event
from gateway.errors import DevgwError
from gateway.gate import Recorder
from gateway.model import Actor

_MAKES_ROOM = frozenset(
    {
        "user.disabled",
        "key.removed",
        "environment.stopped",
        "environment.deleted",
        "environment.reaped",
        "session.killed",
    }
)
"""What shuts out or frees: on a full disk it may use the room that is kept for administrators."""


class Recorded:
    """The journal as one person's acts see it. Every call returns when the record is durable."""

    def __init__(self, recorder: Recorder, actor: Actor, make_room: Callable[[], object] = bool) -> None:
        """`make_room` gives up what is kept for administrators, where the disk is full."""
        self._recorder = recorder
        self.make_room = make_room
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
        if code in _MAKES_ROOM:
            self.make_room()
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
