"""Timestamps of signed heads by an authority (RFC 3161): somebody else's word that a head existed at a time.

A head says when it was signed, and whoever has the gateway's key can say any time; a timestamp needs the authority's.
They are kept in a file, one line of JSON for each: the SHA-256 of the signed head, and the authority's response.
"""

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from gateway.audit.schedule import Sink
from gateway.errors import JournalError, NotProvenError

_ANSWER_SECONDS: Final = 30
_ANSWER_MAX_BYTES: Final = 256 << 10
_LINE_MAX_BYTES: Final = 512 << 10
_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"


@dataclass(frozen=True, slots=True)
class Stamped:
    """What timestamps prove: the newest head that has one existed at a time, as did so many others."""

    stamped: int
    heads: int
    at: datetime


def require_library() -> Any:
    """Return the package that knows the format. Raises: JournalError `timestamps.unavailable`."""
    try:
        import rfc3161_client
    except ImportError as exc:
        message = "timestamps need the package rfc3161-client, which is not installed"
        raise JournalError("timestamps.unavailable", message, "pip install 'devgw[timestamps]'") from exc
    return rfc3161_client


def to_timestamp(url: str, file: Path) -> Sink:
    """Have each head stamped, and keep the response. Raises: JournalError `timestamps.unavailable`."""
    library = require_library()

    def write(note: str) -> None:
        request = library.TimestampRequestBuilder().data(note.encode()).build()
        response = _ask(url, request.as_bytes())
        _read_response(library, response)
        line = {"head": sha256(note.encode()).hexdigest(), "response": base64.b64encode(response).decode()}
        with file.open("a") as kept:
            kept.write(json.dumps(line) + "\n")
            kept.flush()
            os.fsync(kept.fileno())

    return write


def _ask(url: str, query: bytes) -> bytes:
    """Send a request to the authority. Raises: OSError, which says what is wrong with its answer."""
    request = urllib.request.Request(url, query, {"Content-Type": _QUERY, "Accept": _REPLY})  # noqa: S310 - the setting permits http and https alone
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
            response: bytes = answer.read(_ANSWER_MAX_BYTES + 1)
    except (HTTPException, ValueError) as exc:
        raise OSError(f"the timestamp authority gave no answer: {exc}") from exc
    except urllib.error.URLError as exc:
        raise OSError(f"the timestamp authority gave no answer: {exc.reason}") from exc
    if len(response) > _ANSWER_MAX_BYTES:
        raise OSError("the timestamp authority's answer is too long")
    return response


def _read_response(library: Any, response: bytes) -> Any:
    """Decode an answer that holds a timestamp. Raises: OSError."""
    try:
        decoded = library.decode_timestamp_response(response)
    except ValueError as exc:
        raise OSError("the timestamp authority's answer is none of RFC 3161") from exc
    if decoded.status not in {library.PKIStatus.GRANTED, library.PKIStatus.GRANTED_WITH_MODS}:
        raise OSError(f"the timestamp authority refused: status {decoded.status}")
    return decoded


def read_timestamps(file: Path) -> dict[str, list[bytes]]:
    """Return the responses of a file by the SHA-256 of their heads. Raises: JournalError `timestamps.malformed`."""
    found: dict[str, list[bytes]] = {}
    try:
        with file.open("rb") as lines:
            while line := lines.readline(_LINE_MAX_BYTES):
                if line.endswith(b"\n"):  # an unfinished one at the end is none
                    one = json.loads(line)
                    found.setdefault(str(one["head"]), []).append(base64.b64decode(one["response"], validate=True))
    except OSError as exc:
        raise JournalError("timestamps.malformed", f"{file} cannot be read: {exc.strerror}") from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise JournalError("timestamps.malformed", f"{file} holds something that is no timestamp") from exc
    return found


def read_roots(file: Path) -> list[x509.Certificate]:
    """Return the authority's certificates, PEM. Raises: JournalError `timestamps.malformed`."""
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as exc:
        raise JournalError("timestamps.malformed", f"{file} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise JournalError("timestamps.malformed", f"{file} holds no certificates in PEM form") from exc


def prove_stamped(
    notes: Iterable[str], stamps: Mapping[str, list[bytes]], roots: Iterable[x509.Certificate]
) -> Stamped:
    """Check the timestamps of signed heads, the oldest first; the newest head must have one.

    Raises:
        NotProvenError: `timestamps.not-proven`, where the newest head has none.
        JournalError: `timestamps.bad`, for one that the authority has not signed over its head.
    """
    library, roots, every = require_library(), list(roots), list(notes)
    times: list[datetime | None] = []
    for note in every:
        responses = stamps.get(sha256(note.encode()).hexdigest(), [])
        times.append(min((_time_of(library, note, one, roots) for one in responses), default=None))
    newest = times[-1] if times else None
    if newest is None:
        message = "not proven: the newest head has no timestamp"
        raise NotProvenError("timestamps.not-proven", message, "it is stamped when it is handed on; fetch them again")
    return Stamped(sum(time is not None for time in times), len(every), newest)


def _time_of(library: Any, note: str, response: bytes, roots: list[x509.Certificate]) -> datetime:
    """Return when a head was stamped. Raises: JournalError `timestamps.bad`."""
    title = note.split("\n", 2)[1]
    builder = library.VerifierBuilder()
    for root in roots:
        builder = builder.add_root_certificate(root)
    try:
        decoded = _read_response(library, response)
        builder.build().verify_message(decoded, note.encode())
        time: datetime = decoded.tst_info.gen_time
    except (library.VerificationError, ValueError, OSError) as exc:
        message = f"the timestamp of the head at record {title} does not prove it: {exc}"
        raise JournalError("timestamps.bad", message, "is --tsa the certificate of this authority's root?") from exc
    return time if time.tzinfo else time.replace(tzinfo=UTC)
