"""Connections of users: end them, with the reason on their screens."""

from collections.abc import Sequence
from contextlib import ExitStack

from gateway.operations.recorded import Recorded
from gateway.store.sessions import LiveSessionTable, OwnedSession


class SessionOperations:
    """An administrator's acts on live connections."""

    def __init__(self, live_sessions: LiveSessionTable, recorded: Recorded) -> None:
        self._live_sessions = live_sessions
        self._recorded = recorded

    def kill(self, sessions: Sequence[OwnedSession], reason: str = "") -> None:
        """Have connections ended by the gateway, which shows their users the reason. Raises: StoreError."""
        shown = f"ended by an administrator{': ' if reason else ''}{reason}"
        with ExitStack() as acts:
            for session in (one.session for one in sessions):
                detail = {"user": session.user, "connection": session.id, "reason": reason}
                acts.enter_context(self._recorded.act("session.killed", session.environment, **detail))
            self._live_sessions.ask_to_end(sessions, shown)
