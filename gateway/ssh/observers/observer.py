"""What watches a session without touching its bytes: the recording of a terminal, or the journal of file operations."""

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from gateway.audit.event import Event, new_reference
from gateway.audit.recording import Recording
from gateway.errors import JournalError
from gateway.gate import Recorder
from gateway.ssh.connection_registry import ClientIdentity
from gateway.ssh.services import RecordingSettings

_log = logging.getLogger(__name__)


class Observer(Protocol):
    """Sees a session's bytes. Raises JournalError where the session must not go on unseen."""

    def shown(self, data: bytes) -> None:
        """See what goes to the user."""

    def typed(self, data: bytes) -> None:
        """See what comes from the user."""

    def resized(self, width: int, height: int) -> None:
        """See a new size of the terminal."""

    def ended(self) -> None:
        """Finish; nothing follows."""


class TerminalRecorder:
    """Records one terminal to a file of its own; a finished recording is journaled."""

    def __init__(
        self, settings: RecordingSettings, recorder: Recorder, identity: ClientIdentity, size: tuple[int, int]
    ) -> None:
        """Begin. Raises: JournalError `recording.unwritable`."""
        self._journal = recorder
        self._identity = identity
        began = datetime.now(UTC)
        self._reference = new_reference()
        self._recording = Recording(
            _path(settings.directory, identity, began, self._reference),
            width=size[0] or 80,
            height=size[1] or 24,
            began_at=began,
            title=f"{identity.ref} from {identity.address}",
            cap_bytes=settings.cap_bytes,
            record_input=settings.record_input,
        )

    def shown(self, data: bytes) -> None:
        self._recording.output(data)

    def typed(self, data: bytes) -> None:
        self._recording.input(data)

    def resized(self, width: int, height: int) -> None:
        self._recording.resize(width, height)

    def ended(self) -> None:
        """Make the file durable off the event loop, then say where it is."""
        asyncio.get_running_loop().run_in_executor(None, self._finish)

    def _finish(self) -> None:
        reason = ""
        size = 0
        try:
            size = self._recording.close()
        except JournalError as error:
            reason = error.message
            _log.error("a recording could not be finished: %s", reason)
        detail: dict[str, str | int | float | bool | None] = {
            "file": str(self._recording.path),
            "bytes": size,
            "is_full": self._recording.is_full,
        }
        actor, environment = self._identity.actor, str(self._identity.ref)
        event = Event("session.recorded", actor, environment, reason=reason, detail=detail, reference=self._reference)
        self._journal.submit(event)


def _path(directory: Path, identity: ClientIdentity, began: datetime, reference: str) -> Path:
    """Name a recording by user, time and reference; user names hold no separator (invariant 9)."""
    folder = directory / identity.user.name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise JournalError("recording.unwritable", f"the session cannot be recorded: {exc.strerror}") from exc
    return folder / f"{began:%Y%m%dT%H%M%SZ}-{reference}.cast"
