"""Signing heads on a schedule and handing them to where the gateway's host cannot take them back."""

import os
import subprocess
import syslog
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.audit.event import Event
from gateway.audit.head_signing import HeadSigner
from gateway.errors import JournalError
from gateway.model import Actor

Sink = Callable[[str], None]
_COMMAND_TIMEOUT_SECONDS = 60


def to_file(path: Path) -> Sink:
    """Append each head to a file; the last one in it counts. The file belongs on another machine's disk."""

    def write(note: str) -> None:
        with path.open("a") as file:
            file.write(f"{note}\n")
            file.flush()
            os.fsync(file.fileno())

    return write


def to_syslog() -> Sink:
    """Send each head to syslog in one line, line breaks as `|`, for a log host to keep."""

    def write(note: str) -> None:
        syslog.openlog("devgw", facility=syslog.LOG_AUTH)
        syslog.syslog(syslog.LOG_NOTICE, "journal head " + note.strip().replace("\n", "|"))

    return write


def to_command(argv: Sequence[str]) -> Sink:
    """Give each head to a command on its standard input; it fails when the command does."""

    def write(note: str) -> None:
        subprocess.run(list(argv), input=note, text=True, check=True, timeout=_COMMAND_TIMEOUT_SECONDS)

    return write


class HeadKeeper:
    """Signs the journal's end every so often, when it has moved, and tells each sink."""

    def __init__(
        self,
        signer: HeadSigner,
        sinks: Sequence[Sink],
        *,
        interval_seconds: float = 300,
        on_failure: Callable[[Event], None] | None = None,
    ) -> None:
        self._signer = signer
        self._sinks = tuple(sinks)
        self._interval_seconds = interval_seconds
        self._on_failure = on_failure
        self._signed_size = -1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def sign_now(self) -> str | None:
        """Sign and hand on the present end; None where it has not moved.

        Raises:
            JournalError: `journal.not-continued`, when the journal is not the one signed before; `journal.unreadable`;
                `head.not-delivered`, when a sink failed; all were tried, and all are tried again next time.
        """
        if self._signer.end_size() == self._signed_size:
            return None
        head, note = self._signer.sign()
        self.hand_on(note)
        self._signed_size = head.size
        return note

    def hand_on(self, note: str) -> None:
        """Give a head to every sink. Raises: JournalError `head.not-delivered`, when one failed; all were tried."""
        faults: list[str] = []
        for sink in self._sinks:
            try:
                sink(note)
            except (OSError, subprocess.SubprocessError) as exc:
                faults.append(str(exc))
        if faults:
            raise JournalError("head.not-delivered", f"a head could not be handed on: {'; '.join(faults)}")

    def start(self) -> None:
        """Begin to sign at each interval, in a thread."""
        self._thread = threading.Thread(target=self._run, name="journal heads", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sign a last time and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(self._interval_seconds)
            try:
                self.sign_now()
            except JournalError as exc:
                if self._on_failure is not None:
                    actor = Actor("gateway", "journal")
                    self._on_failure(Event("journal.head-failed", actor, reason=exc.message))
