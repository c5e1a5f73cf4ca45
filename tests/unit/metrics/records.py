"""Records of the journal, made up."""

from datetime import UTC, datetime

from gateway.audit.record import Record

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def record(
    code: str, *, at: datetime = NOON, reason: str = "", environment: str = "alice", **detail: str | float
) -> Record:
    """Return one, as the journal would give it back."""
    actor = {"kind": "user", "name": "alice", "key": "", "address": ""}
    return Record(1, at, code, actor, environment, "", "", reason, "0" * 10, detail, "0" * 64)
