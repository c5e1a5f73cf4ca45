"""Who is connected in transcripts: rows such as a serving gateway writes, here of the test's own process."""

from datetime import UTC, datetime

from gateway.engines.bubblewrap.process import Process
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
