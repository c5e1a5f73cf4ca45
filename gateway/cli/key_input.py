"""Reads public keys from files and stdin. What a key must be is said in `auth.keys`."""

import codecs
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.errors import AuthError, UsageError
from gateway.model import PublicKey

_READ_LIMIT = 64 * 1024


def read_public_keys(places: Sequence[str]) -> tuple[PublicKey, ...]:
    """Read one key from each place. Raises: UsageError, AuthError, naming the file."""
    return tuple(read_public_key(place) for place in places)


def read_public_key(place: str) -> PublicKey:
    """Read a key from a file, or with `-` from stdin.

    Raises:
        UsageError: `key.unreadable`.
        AuthError: what is wrong with the key, with the file's name before it.
    """
    from gateway.auth.keys import parse_public_key

    text = _read_text(place)
    try:
        return parse_public_key(text)
    except AuthError as exc:
        raise AuthError(exc.code, f"{_name_of(place)}: {exc.message}", exc.hint) from exc


def _read_text(place: str) -> str:
    try:
        raw = sys.stdin.buffer.read(_READ_LIMIT) if place == "-" else _read_file(Path(place))
        return _decode(raw)
    except OSError as exc:
        raise UsageError(
            "key.unreadable",
            f"{_name_of(place)}: {(exc.strerror or str(exc)).lower()}",
            "give a public key file, or - for stdin",
        ) from exc
    except UnicodeDecodeError as exc:
        raise UsageError("key.unreadable", f"{_name_of(place)}: this is not text", "give the .pub file") from exc


def _decode(raw: bytes) -> str:
    """Read text as editors save it: UTF-8 or UTF-16, with a byte order mark or without. Raises: UnicodeDecodeError."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16")
    if raw[1:2] == b"\0":  # a key is ASCII at its beginning, so every other byte is a zero
        return raw.decode("utf-16-le")
    if raw[:1] == b"\0":
        return raw.decode("utf-16-be")
    return raw.decode("utf-8-sig")


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_READ_LIMIT)


def _name_of(place: str) -> str:
    return "stdin" if place == "-" else place
