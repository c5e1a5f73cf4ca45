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
from json.encoder import encode_basestring_ascii
from typing import Any

from gateway.audit.event import Event

GENESIS = bytes(32)
"""What stands for the hash before the first record."""

HASH_FIELD_BYTES = len(b',"hash":"') + 64 + len(b'"}')
TAG = b"devgw journal v1\n" + (32).to_bytes(8)
_LONGEST_TEXT = 4096


def encode(event: Event) -> bytes:
    """Return an event's canonical form from `"time"` on, without number and hash.

    Everything outside ASCII, control characters and bidi marks included, becomes a JSON escape; long texts are cut.
    """
    actor = event.actor
    detail = ",".join([f"{_text(name)}:{_scalar(value)}" for name, value in event.detail.items()])
    return (
        f'"time":"{stamp(event.at)}","code":{_text(event.code)},'
        f'"actor":{{"kind":{_text(actor.kind)},"name":{_text(actor.name)},'
        f'"key":{_text(actor.key_fingerprint)},"address":{_text(actor.address)}}},'
        f'"environment":{_text(event.environment)},"decision":{_text(event.decision)},'
        f'"rule":{_text(event.rule)},"reason":{_text(event.reason)},'
        f'"reference":{_text(event.reference)},"detail":{{{detail}}}'
    ).encode("ascii")


def stamp(at: datetime) -> str:
    """Write a time in UTC with microseconds: always 27 characters, so that texts sort as times do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def _text(text: str) -> str:
    """Write a JSON string. ASCII's one control character that JSON lets through, DEL, is escaped too."""
    whole = len(text)
    text = text[:_LONGEST_TEXT]
    written = encode_basestring_ascii(text)
    while len(written) > 2 * _LONGEST_TEXT:  # an escape is up to twelve times as long as what it stands for
        text = text[: len(text) * 3 // 4]
        written = encode_basestring_ascii(text)
    if len(text) < whole:
        written = encode_basestring_ascii(f"{text}... ({whole} characters)")
    return written.replace("\x7f", "\\u007f")


def _scalar(value: object) -> str:
    """Write a JSON scalar; what has no JSON form is written as text."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    return _text(str(value))


def chain(previous: bytes, content: bytes) -> bytes:
    """Return the hash of a record: `content` is its line before `,"hash"`."""
    return sha256(b"".join((TAG, previous, len(content).to_bytes(8), content))).digest()


def finish(number: int, body: bytes, previous: bytes) -> tuple[bytes, bytes]:
    """Give an encoded event its number. Returns the line with its newline, and its hash."""
    content = b'{"v":1,"seq":%d,%b' % (number, body)
    digest = chain(previous, content)
    return b"".join((content, b',"hash":"', digest.hex().encode(), b'"}\n')), digest


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
            "time": stamp(self.at),
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

    def line(self) -> str:
        """Return the record as its line in the journal, without the newline."""
        return json.dumps(self.as_dict(), separators=(",", ":")).replace("\x7f", "\\u007f")


def parse(line: bytes) -> Record:
    """Read a line back. Raises: ValueError, when it is not a record of this format."""
    try:
        fields = json.loads(line)
        return Record(
            number=int(fields["seq"]),
            at=datetime.fromisoformat(fields["time"]),
            code=str(fields["code"]),
            actor=_object(fields["actor"]),
            environment=fields["environment"],
            decision=fields["decision"],
            rule=fields["rule"],
            reason=fields["reason"],
            reference=fields["reference"],
            detail=_object(fields["detail"]),
            hash=fields["hash"],
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise ValueError(f"not a journal record: {exc}") from exc


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("actor and detail are objects")
    return value
