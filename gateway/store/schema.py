"""The tables. Rows leave this package as values of `gateway.model`; `migrations/` makes the same tables."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
)
from sqlalchemy import types as sqltypes

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)


class UtcDateTime(sqltypes.TypeDecorator[datetime]):
    """A point in time, aware and in UTC on both sides; SQLite itself keeps no time zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, _dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


USERS = Table(
    "users",
    METADATA,
    Column("name", String(31), primary_key=True),
    Column("uid", Integer, nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    Column("move", String(32), nullable=False, server_default=""),  # the id of a move that is going on
    Column("closed_because", String, nullable=False, server_default=""),  # why nobody gets in: being moved, or moved
)

MOVES = Table(
    "moves",
    METADATA,
    Column("id", String(32), primary_key=True),  # the same on both hosts
    Column("side", String(8), nullable=False),  # source, target
    Column("user", String(31), nullable=False, index=True),
    Column("other", String, nullable=False),  # the other host, as an administrator named it
    Column("step", String(16), nullable=False),  # the last that is done, see operations.departure and arrival
    Column("reason", String, nullable=False),
    Column("by", String, nullable=False),
    Column("begun_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("detail", JSON, nullable=False),
)

PUBLIC_KEYS = Table(
    "public_keys",
    METADATA,
    Column("user", ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("algorithm", String(64), nullable=False),
    Column("bits", Integer, nullable=False),
    Column("line", String, nullable=False),
    Column("comment", String, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime),
)

ENVIRONMENTS = Table(
    "environments",
    METADATA,
    Column("user", ForeignKey("users.name"), primary_key=True),
    Column("name", String(31), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("engine", String(16), nullable=False),
    Column("image", String, nullable=False),
    Column("memory_bytes", sqltypes.BigInteger, nullable=False),
    Column("cpus", sqltypes.Float, nullable=False),
    Column("pids", Integer, nullable=False),
    Column("shm_bytes", sqltypes.BigInteger, nullable=False),
    Column("gpu_request", String, nullable=False),
    Column("datasets", JSON, nullable=False),
    Column("egress", String, nullable=False),
    Column("should_run", sqltypes.Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_active_at", UtcDateTime),
    Column("detail", String, nullable=False),
    Column("purges", sqltypes.Boolean, nullable=False, server_default=false()),  # its deletion takes the files
    Column("node_request", String, nullable=False, server_default=""),  # the only node it may be on
    Column("disk_bytes", sqltypes.BigInteger, nullable=False, server_default="0"),  # of its volumes; 0: no size
    Column("trouble", String, nullable=False, server_default=""),  # what the gateway last failed at, see troubles
    Column("image_digest", String(80), nullable=False, server_default=""),  # what it was last started from
    Column("restart_at", UtcDateTime),  # when it starts anew from its image as that is then
)

IMAGES = Table(
    "images",
    METADATA,
    Column("digest", String(80), primary_key=True),
    Column("origin", String(16), nullable=False),  # built, pulled, imported
    Column("source", String, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("by", String, nullable=False),
    Column("reason", String, nullable=False),
)

CHANNEL_MOVES = Table(
    "channel_moves",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("channel", String(64), nullable=False, index=True),
    Column("digest", String(80), nullable=False),
    Column("kind", String(16), nullable=False),  # built, promoted, found
    Column("at", UtcDateTime, nullable=False),
    Column("by", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("undone_at", UtcDateTime),  # rolled back: the move before it counts
    Column("undone_by", String, nullable=False, server_default=""),
    Column("undone_reason", String, nullable=False, server_default=""),
)

LEASES = Table(
    "leases",
    METADATA,
    Column(
        "gpu_uuid", String(80), primary_key=True
    ),  # the uniqueness that keeps a GPU with one environment (invariant 11)
    Column("user", String(31), nullable=False),
    Column("name", String(31), nullable=False),
    Column("leased_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime),
    Column("counted_until", UtcDateTime, nullable=False),  # up to here it is in its user's share
    ForeignKeyConstraint(["user", "name"], ["environments.user", "environments.name"], ondelete="CASCADE"),
)

PAST_LEASES = Table(
    "past_leases",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("gpu_uuid", String(80), nullable=False),
    Column("user", String(31), nullable=False),
    Column("name", String(31), nullable=False),
    Column("leased_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=False, index=True),
)

SHARES = Table(
    "shares",
    METADATA,
    Column("user", String(31), primary_key=True),
    Column("log_hours", sqltypes.Float, nullable=False, index=True),  # see gateway.store.shares
)

QUEUE = Table(
    "queue",
    METADATA,
    Column("user", String(31), primary_key=True),
    Column("name", String(31), primary_key=True),
    Column("gpu_request", String, nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),  # the waiter's heartbeat: a dead one is passed over
)

QUARANTINE = Table(
    "quarantine",
    METADATA,
    Column("gpu_uuid", String(80), primary_key=True),
    Column("reason", String, nullable=False),
    Column("since", UtcDateTime, nullable=False),
)

TERMS = Table(
    "terms",
    METADATA,
    Column("user", String(31), primary_key=True),
    Column("name", String(31), primary_key=True),
    Column("active_at", UtcDateTime),
    Column("activity", String, nullable=False),
    Column("said", String(16), nullable=False),
    Column("said_of", UtcDateTime),  # the end that was announced; when it moves, all is said anew
    Column("warned_at", UtcDateTime),
    Column("healed_at", UtcDateTime),
    ForeignKeyConstraint(["user", "name"], ["environments.user", "environments.name"], ondelete="CASCADE"),
)

USAGE_SAMPLES = Table(
    "usage_samples",
    METADATA,
    Column("gpu_uuid", String(80), primary_key=True),
    Column("user", String(31), primary_key=True),
    Column("name", String(31), primary_key=True),
    Column("hour", UtcDateTime, primary_key=True),
    Column("observed_seconds", sqltypes.Float, nullable=False),
    Column("busy_seconds", sqltypes.Float, nullable=False),
    Column("memory_peak_bytes", sqltypes.BigInteger, nullable=False),
)

LOAD_SAMPLES = Table(
    "load_samples",
    METADATA,
    Column("user", String(31), primary_key=True),
    Column("name", String(31), primary_key=True),
    Column("hour", UtcDateTime, primary_key=True),
    Column("observed_seconds", sqltypes.Float, nullable=False),
    Column("cpu_seconds", sqltypes.Float, nullable=False),
    Column("memory_peak_bytes", sqltypes.BigInteger, nullable=False),
    ForeignKeyConstraint(["user", "name"], ["environments.user", "environments.name"], ondelete="CASCADE"),
)

LIVE_SESSIONS = Table(
    "live_sessions",
    METADATA,
    Column("boot", String(36), primary_key=True),  # these three name the process that serves it, see Owner
    Column("pid", Integer, primary_key=True, autoincrement=False),
    Column("started", sqltypes.BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(16), primary_key=True),
    Column("user", String(31), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("address", String, nullable=False),
    Column("environment", String(63), nullable=False),
    Column("channels", JSON, nullable=False),
    Column("sent_bytes", sqltypes.BigInteger, nullable=False),
    Column("received_bytes", sqltypes.BigInteger, nullable=False),
    Column("since", UtcDateTime, nullable=False),
)

KILL_REQUESTS = Table(
    "kill_requests",
    METADATA,
    Column("boot", String(36), primary_key=True),
    Column("pid", Integer, primary_key=True, autoincrement=False),
    Column("started", sqltypes.BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(16), primary_key=True),
    Column("reason", String, nullable=False),
)

TERMINAL_LINES = Table(
    "terminal_lines",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("user", String(31), nullable=False),
    Column("name", String(31), nullable=False),
    Column("line", String, nullable=False),
    Column("said_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,  # a number is never used again
)

PROJECTS = Table(
    "projects",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("user", String(31), nullable=False),
    Column("name", String(31), nullable=False),
    UniqueConstraint("user", "name"),
    sqlite_autoincrement=True,  # a number is never used again
)

SERVING = Table(
    "serving",
    METADATA,
    Column("boot", String(36), primary_key=True),  # these three name a process, see Owner
    Column("pid", Integer, primary_key=True, autoincrement=False),
    Column("started", sqltypes.BigInteger, primary_key=True, autoincrement=False),
    Column("instance", String(32), nullable=False),  # the gateway that it is of
    Column("seen_at", UtcDateTime, nullable=False),  # by the database's clock
)

DRAINS = Table(
    "drains",
    METADATA,
    Column("node", String, primary_key=True),
    Column("reason", String, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("stop_at", UtcDateTime),  # when what runs there stops; NULL: when its users stop it
)

LOGIN_TALLIES = Table(
    "login_tallies",
    METADATA,
    Column("kind", String(16), primary_key=True),  # what is counted
    Column("source", String, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("since", sqltypes.Float, nullable=False),  # seconds of Unix time, as are the next and the last
    Column("banned_until", sqltypes.Float, nullable=False),
    Column("bans", Integer, nullable=False),
    Column("change", sqltypes.BigInteger, nullable=False, index=True),  # grows with each, so that news can be asked for
    Column("changed_at", sqltypes.Float, nullable=False),
)

REVISION = Table(
    "revision",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("number", Integer, nullable=False),  # grows with every change that a running gateway must look at again
)
