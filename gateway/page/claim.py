"""Who is behind a connection to the page: said by the process that serves SSH, and sealed against everybody else.

The seal's key lies in the run directory for the gateway's own account; the process that speaks HTTP cannot read it.
"""

import base64
import binascii
import hmac
import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.errors import AuthError
from policies.requests import Certificate, Subject

LINE_MAX = 16 << 10
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Claim:
    """One SSH connection's user. `secret` is that connection's alone: cookies and form tokens are made from it."""

    subject: Subject
    environment: str
    connection: str
    secret: str = ""


class Seal:
    """The key that claims are sealed with, made by whoever comes first."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def line(self, claim: Claim) -> bytes:
        """Return a claim with its secret as one sealed line. Raises: OSError."""
        secret = self._mac(f"secret of {claim.connection}".encode())
        body = base64.b64encode(json.dumps(asdict(replace(claim, secret=secret)), default=_text_of).encode())
        return body + b"." + self._mac(body).encode() + b"\n"

    def opened(self, line: str) -> Claim:
        """Return what a sealed line says. Raises: AuthError `page.bad-claim`, OSError."""
        body, _, mac = line.strip().partition(".")
        if not hmac.compare_digest(self._mac(body.encode()).encode(), mac.encode()):
            raise AuthError("page.bad-claim", "nobody of this gateway says so")
        return read_claim(line)

    def _mac(self, data: bytes) -> str:
        return hmac.digest(self._key(), data, "sha256").hex()

    def _key(self) -> bytes:
        with suppress(FileExistsError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = self._file.with_name(f".{self._file.name}.{secrets.token_hex(8)}")
            if not self._file.exists():
                with open(fresh, "xb", opener=_for_the_owner) as file:
                    file.write(secrets.token_bytes(_KEY_BYTES))
                try:
                    os.link(fresh, self._file)  # whole, or not there; the first one stays
                finally:
                    fresh.unlink()
        return self._file.read_bytes()


def read_claim(line: str) -> Claim:
    """Return what a line says without looking at its seal: for whom only the gateway can reach.

    Raises: AuthError `page.bad-claim`.
    """
    try:
        fields: dict[str, Any] = json.loads(base64.b64decode(line.partition(".")[0], validate=True))
        subject = dict(fields["subject"])
        subject["certificate"] = _certificate(subject.get("certificate"))
        return Claim(**(fields | {"subject": Subject(**subject)}))
    except (ValueError, TypeError, KeyError, binascii.Error) as exc:
        raise AuthError("page.bad-claim", "this is nobody's claim") from exc


def _certificate(fields: dict[str, Any] | None) -> Certificate | None:
    if fields is None:
        return None
    times = {name: datetime.fromisoformat(fields[name]) for name in ("valid_after", "valid_before")}
    lists = {name: tuple(fields[name]) for name in ("principals", "source_addresses", "critical_options")}
    return Certificate(**(fields | times | lists))


def _text_of(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
