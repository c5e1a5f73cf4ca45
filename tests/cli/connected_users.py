"""Who is or was connected in transcripts: rows, records and recordings such as a serving gateway writes."""

from datetime import UTC, datetime
from pathlib import Path

from gateway.app.composition import App
from gateway.audit import events
from gateway.audit.event import Event
from gateway.audit.recording import Recording
from gateway.engines.bubblewrap.process import Process
from gateway.model import Actor
from gateway.store.sessions import LiveSession, LiveSessionTable, Owner

_CHANNELS = {
    "alice": ("session shell", "forward localhost:8888", "forward localhost:8888"),
    "mallory": ("session exec true\nfeedface  admin  SHA256:forged",),
}


def connect(table: LiveSessionTable, user: str, *, is_alive: bool = True) -> None:
    """Write down a connection of a process that runs, or of one that does no longer."""
    own = Process.own()
    session = LiveSession(
        id=f"{len(user):08x}",
        user=user,
        fingerprint="SHA256:" + "k" * 43,
        address="192.0.2.7",
        environment=user,
        channels=_CHANNELS.get(user, ()),
        sent_bytes=3 * 2**20,
        received_bytes=512,
        since=datetime.now(UTC),
    )
    table.publish(Owner(own.pid, own.started if is_alive else 1, own.boot), [session], (), ())


def end_past_connection(gateway: App, user: str, administrator: str) -> None:
    """Journal a connection that an administrator ended."""
    actor = Actor("user", user, "SHA256:" + "k" * 43, "192.0.2.7")
    detail: events.Detail = {"user": user, "connection": f"{len(user):08x}", "reason": "maintenance"}
    gateway.journal.append(Event("session.killed", Actor("admin", administrator), user, detail=detail))
    reason = "ended by an administrator: maintenance"
    closed = events.connection_closed(actor, user, f"{len(user):08x}", 3 * 2**20, 512, 90.0, reason)
    gateway.journal.append(closed)
    gateway.journal.close()


def record_terminal(directory: Path, user: str, text: str) -> None:
    """Leave a recording that began on 3 May at noon and showed a text at once."""
    folder = directory / user
    folder.mkdir(parents=True)
    began = datetime(2026, 5, 3, 12, tzinfo=UTC)
    path = folder / "20260503T120000Z-k3v9q2m8ab.cast"
    recording = Recording(path, width=80, height=24, began_at=began, clock=lambda: 0.0)
    recording.output(f"alice> {text}\r\n".encode())
    recording.close()
