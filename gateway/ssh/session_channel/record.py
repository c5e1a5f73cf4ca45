"""The record of one session: its place among the live channels, its observer, and its two events."""

from collections.abc import Callable
from datetime import UTC, datetime

from gateway.audit import events
from gateway.errors import JournalError
from gateway.ssh.channel_context import ChannelContext
from gateway.ssh.connection_registry import LiveChannel
from gateway.ssh.observers.observer import Observer, TerminalRecorder
from gateway.ssh.observers.sftp_journal import SftpJournal
from policies.requests import SessionRequest

_SHOWN_MAX = 200
"""Characters of a command that the list of live sessions shows."""


class SessionRecord:
    """What is known of a session by others. `end` closes the session and shows the reason, `tell` shows a line."""

    def __init__(self, context: ChannelContext, end: Callable[[str], None], tell: Callable[[str], None]) -> None:
        self._context = context
        self._end = end
        self._tell = tell
        self._observer: Observer | None = None
        self._live: LiveChannel | None = None
        self._kind = ""
        self._has_terminal = False

    def begin(
        self, kind: str, terminal_size: tuple[int, int] | None, on_write: Callable[[str], None] = lambda _path: None
    ) -> None:
        """Watch file operations, and terminals where the policy asks for that. Raises: JournalError.

        `on_write` hears of files that are to be written.
        """
        identity, services = self._context.identity, self._context.runtime.services
        self._kind, self._has_terminal = kind, terminal_size is not None
        if kind == "sftp":
            self._observer = SftpJournal(identity, services.recorder.submit, services.budget, on_write)
        elif terminal_size and services.recordings and services.access.allowance(identity.user.name).record_sessions:
            self._observer = TerminalRecorder(services.recordings, services.recorder, identity, terminal_size)
            self._tell("this terminal is recorded, as the policy asks")

    def opened(self, request: SessionRequest, command: str, *, uses_environment: bool = True) -> None:
        """Note the session as live and journal its opening."""
        identity, detail = self._context.identity, f"{request.kind} {command[:_SHOWN_MAX]}".strip()
        self._live = LiveChannel(request, self._end, detail=detail, uses_environment=uses_environment)
        event = events.session_opened(
            identity.actor, str(identity.ref), request.kind, terminal=self._has_terminal, command=command
        )
        self._context.opened(self._live, event)

    def closed(self, exit_code: int | None, reason: str) -> None:
        """Finish the observer, and journal the end of a session that was opened."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.ended()
        live, self._live = self._live, None
        if live is None:
            return
        identity = self._context.identity
        event = events.session_closed(
            identity.actor,
            str(identity.ref),
            self._kind,
            terminal=self._has_terminal,
            exit_code=exit_code,
            sent_bytes=live.traffic.sent_bytes,
            received_bytes=live.traffic.received_bytes,
            seconds=(datetime.now(UTC) - live.since).total_seconds(),
            reason=reason,
        )
        self._context.closed(live, event)

    def sent(self, size: int) -> None:
        """Count bytes that went to the user."""
        if self._live:
            self._live.traffic.sent_bytes += size

    def received(self, size: int) -> None:
        """Count bytes that came from the user."""
        if self._live:
            self._live.traffic.received_bytes += size

    def observe(self, see: Callable[[Observer], None]) -> None:
        """Let the observer see; a session that must be recorded and cannot be ends."""
        if self._observer is None:
            return
        try:
            see(self._observer)
        except JournalError as error:
            self._observer = None
            self._end(error.message)
