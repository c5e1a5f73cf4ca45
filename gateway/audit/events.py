"""Makes the events that more than one room records, so that each has one shape whoever writes it down."""

from typing import Literal

from gateway.audit.event import Event, new_reference
from gateway.model import GATEWAY, Actor, Environment

Detail = dict[str, str | int | float | bool | None]
"""What an event carries beside who, where and why. Never a secret."""
COMMAND_MAX = 4096
"""Characters of a command that are kept."""
ASKED_MAX = 255
"""Of what was asked for and refused, characters that are kept."""
NAME_MAX = 64
"""Of a user name that may be nobody's."""


def session_opened(actor: Actor, environment: str, kind: str, *, terminal: bool, command: str = "") -> Event:
    """A shell, command or sftp channel begins."""
    return Event("session.opened", actor, environment, detail=_session(kind, command, terminal=terminal))


def session_closed(  # noqa: PLR0913 - each is a field of the record
    actor: Actor,
    environment: str,
    kind: str,
    *,
    terminal: bool,
    exit_code: int | None,
    sent_bytes: int,
    received_bytes: int,
    seconds: float,
    reason: str = "",
) -> Event:
    """It has ended. `sent_bytes` is what the program wrote, `received_bytes` what it was given."""
    counts: Detail = {"exit_code": exit_code, **_moved(sent_bytes, received_bytes), "seconds": round(seconds, 3)}
    detail = _session(kind, "", terminal=terminal) | counts
    return Event("session.closed", actor, environment, reason=reason, detail=detail)


def forward_opened(actor: Actor, environment: str, kind: str, destination: str) -> Event:
    """A TCP or Unix channel into the environment begins."""
    return Event("forward.opened", actor, environment, detail=_forward(kind, destination, 0, 0))


def forward_closed(
    actor: Actor, environment: str, kind: str, destination: str, sent_bytes: int, received_bytes: int, reason: str
) -> Event:
    """It has ended, with what it moved."""
    detail = _forward(kind, destination, sent_bytes, received_bytes)
    return Event("forward.closed", actor, environment, reason=reason, detail=detail)


def forward_refused(actor: Actor, environment: str, destination: str, reason: str) -> Event:
    """What no policy could allow was asked for; decisions of the policy are the gate's to record."""
    return Event("forward.denied", actor, environment, "denied", "gateway", reason, {"destination": destination})


def channel_refused(actor: Actor, environment: str, kind: str, asked: str) -> Event:
    """X11, a tunnel, another subsystem: something that this gateway never gives."""
    reason = "this gateway has no such thing, or there can be none of that name"
    detail: Detail = {"kind": kind, "asked": asked[:ASKED_MAX]}
    return Event("channel.refused", actor, environment, "denied", "gateway", reason, detail)


def login_refused(actor: Actor, user: str, offered_keys: str, reason: str) -> Event:
    """A login failed before any policy was asked."""
    detail: Detail = {"user": user[:NAME_MAX], "offered_keys": offered_keys}
    return Event("login.refused", actor, decision="denied", reason=reason, detail=detail)


def source_banned(address: str, user: str | None, seconds: float, bans: int, reason: str) -> Event:
    """An address, or one user name from it, is shut out; `reason` says what for."""
    detail: Detail = {"address": address, "user": user, "seconds": round(seconds), "bans": bans}
    return Event("source.banned", Actor("gateway", "devgw"), decision="denied", reason=reason, detail=detail)


def source_unbanned(
    actor: Actor, address: str, user: str | None, left_seconds: float, banned_because: str, reason: str
) -> Event:
    """An administrator let it in again before its time."""
    detail: Detail = {
        "address": address,
        "user": user,
        "left_seconds": round(left_seconds),
        "banned_because": banned_because,
    }
    return Event("source.unbanned", actor, reason=reason, detail=detail)


def connection_closed(
    actor: Actor,
    environment: str,
    connection: str,
    sent_bytes: int,
    received_bytes: int,
    seconds: float,
    reason: str,
    reference: str = "",
) -> Event:
    """The connection of a logged-in user has ended."""
    detail: Detail = {
        "connection": connection,
        **_moved(sent_bytes, received_bytes),
        "seconds": round(seconds, 3),
    }
    return Event(
        "connection.closed", actor, environment, reason=reason, detail=detail, reference=reference or new_reference()
    )


def session_revoked(actor: Actor, environment: str, connection: str, what: str, reason: str, rule: str) -> Event:
    """The gateway ends a connection or a channel that a changed user, key, policy or hour no longer allows."""
    detail: Detail = {"connection": connection, "what": what}
    return Event("session.revoked", actor, environment, "denied", rule, reason, detail)


def start_of(environment: Environment) -> dict[str, str]:
    """What an environment was started from, and what is mounted in it since then."""
    return {
        "image": environment.image,
        "digest": environment.image_digest,
        "datasets": ",".join(environment.datasets),
    }


def finding_of(code: str, environment: str, what: str, started: Environment | None) -> Event:
    """The gateway found something of an environment, or did it: then `started` is the environment that it started."""
    detail: Detail = {**start_of(started)} if started is not None else {}
    return Event(code, GATEWAY, environment, reason=what, detail=detail)


def environment_woken(actor: Actor, woken: Environment, why: str, seconds: float) -> Event:
    """A stopped environment was started because somebody connected."""
    detail: Detail = {"seconds": round(seconds, 3), **start_of(woken)}
    return Event("environment.woken", actor, str(woken.ref), reason=why, detail=detail)


def upstream_cut(actor: Actor, environment: str, why: str) -> Event:
    """The gateway has cut its own connection to an environment."""
    return Event("environment.cut", actor, environment, reason=why)


def egress_host_closed(  # noqa: PLR0913 - each is a field of the record
    actor: Actor,
    environment: str,
    host: str,
    port: int,
    *,
    sent_bytes: int,
    received_bytes: int,
    seconds: float,
    rule: str,
    reason: str,
) -> Event:
    """A connection to a host outside has ended. `sent_bytes` is what the environment sent."""
    detail: Detail = {"host": host, "port": port, **_moved(sent_bytes, received_bytes), "seconds": round(seconds, 3)}
    return Event("egress-host.closed", actor, environment, rule=rule, reason=reason, detail=detail)


def egress_host_refused(actor: Actor, environment: str, host: str, port: int, reason: str, count: int = 1) -> Event:
    """A connection that the policy may allow was refused by the gateway itself; `count` says how often."""
    detail: Detail = {"host": host[:ASKED_MAX], "port": port, "count": count}
    return Event("egress-host.refused", actor, environment, "denied", "gateway", reason, detail)


Change = Literal["lease.granted", "lease.released"]


def lease_changed(code: Change, actor: Actor, environment: str, gpus: str, reason: str, ends_at: str = "") -> Event:
    """GPUs came to an environment or went back."""
    detail: Detail = {"gpus": gpus}
    if ends_at:
        detail["ends_at"] = ends_at
    return Event(code, actor, environment, reason=reason, detail=detail)


def _session(kind: str, command: str, *, terminal: bool) -> Detail:
    detail: Detail = {"kind": kind, "terminal": terminal}
    if command:
        detail["command"] = command[:COMMAND_MAX]
    return detail


def _forward(kind: str, destination: str, sent_bytes: int, received_bytes: int) -> Detail:
    return {"kind": kind, "destination": destination, **_moved(sent_bytes, received_bytes)}


def _moved(sent_bytes: int, received_bytes: int) -> Detail:
    return {"sent_bytes": sent_bytes, "received_bytes": received_bytes}
