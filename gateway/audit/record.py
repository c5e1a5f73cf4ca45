"""One line of the journal: its canonical form and its hash, as docs/reference/audit-format.md states them.

A line is `{"v":1,"seq":N,...,"hash":"..."}` in ASCII, keys in a fixed order, no spaces. The hash is SHA-256 over a
tag and two length-prefixed fields: the previous record's hash and the line's bytes before `,"hash"`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from gateway.audit.event import Event

GENESIS = bytes(32)
"""What stands for the hash before the first record."""

HASH_FIELD_BYTES = len(b',"hash":"') + 64 + len(b'"}')
TAG = b"devgw journal v1\n" + (32).to_bytes(8)
_LONGEST_TEXT = 4096
_ENCODE = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def encode(event: Event) -> bytes:
    """Return an event's canonical form from `"time"` on, without number and hash.

    Everything outside ASCII, control characters and bidi marks included, becomes a JSON escape; long texts are cut.
    """
    actor = event.actor
    fields = {
        "time": event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "code": event.code,
        "actor": {
            "kind": actor.kind,
            "name": _cut(actor.name),
            "key": _cut(actor.key_fingerprint),
            "address": _cut(actor.address),
        },
        "environment": _cut(event.environment),
        "decision": event.decision,
        "rule": _cut(event.rule),
        "reason": _cut(event.reason),
        "reference": event.reference,
        "detail": {_cut(name): _plain(value) for name, value in event.detail.items()},
    }
    return _ENCODE(fields)[1:-1].replace("\x7f", "\\u007f").encode("ascii")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}... ({len(text)} characters)"


def _plain(value: Any) -> str | int | float | bool | None:
    """Keep JSON's scalars; what has no JSON form is written as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cut(str(value))


def chain(previous: bytes, content: bytes) -> bytes:
    """Return the hash of a record: `content` is its line before `,"hash"`."""
    return sha256(b"".join((TAG, previous, len(content).to_bytes(8), content))).digest()


def finish(number: int, body: bytes, previous: bytes) -> tuple[bytes, bytes]:
    """Give an encoded event its number. Returns the line with its newline, and its hash."""
    content = b'{"v":1,"seq":%d,%b' % (number, body)
    digest = chain(previous, content)
    return b'%b,"hash":"%b"}\n' % (content, digest.hex().encode()), digest


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read back. Names are as they were sent: show them through `display.printable`."""

    number: int
    at: datetime
    code: str
    actor: Mapping[str, str]
    environment: str
    decision: str
    rule: str
    reason: str
    reference: str
    detail: Mapping[str, str | int | float | bool | None]
    hash: str

    def as_dict(self) -> dict[str, Any]:
        """Return the line's own fields, for `-o json`."""
        return {
            "v": 1,
            "seq": self.number,
            "time": self.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "code": self.code,
            "actor": dict(self.actor),
            "environment": self.environment,
            "decision": self.decision,
            "rule": self.rule,
            "reason": self.reason,
            "reference": self.reference,
            "detail": dict(self.detail),
            "hash": self.hash,
        }


def parse(line: bytes) -> Record:
    """Read a line back. Raises: ValueError, when it is not a record of this format."""
    try:
        fields = json.loads(line)
        return Record(
            number=int(fields["seq"]),
            at=datetime.fromisoformat(fields["time"]),
            code=str(fields["code"]),
            actor=fields["actor"],
            environment=fields["environment"],
            decision=fields["decision"],
            rule=fields["rule"],
            reason=fields["reason"],
            reference=fields["reference"],
            detail=fields["detail"],
            hash=fields["hash"],
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"not a journal record: {exc}") from exc
