"""Signed heads: where the journal's end was at a time, in C2SP checkpoint and signed-note form.

Kept where nobody who can write the journal can write, a head turns a cut tail from invisible into proven. The form is
c2sp.org/tlog-checkpoint with the chain's hash in place of a tree's root; any signed-note tool checks the signature.
"""

import base64
import binascii
import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.errors import JournalError

_ED25519 = b"\x01"  # c2sp.org/signed-note: signature type of Ed25519
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9./_-]{0,127}")
_LARGEST_NOTE = 64 * 2**10
_NOTE = re.compile(r"(?:[^\n]+\n)+\n(?:\N{EM DASH} [^\n]*\n)+")


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a journal: how many records, and the hash of the last one."""

    origin: str
    size: int
    digest: bytes
    at: datetime | None = None
    pruned: "Pruned | None" = None

    def text(self) -> str:
        """Return the checkpoint body; the time and what was pruned stand in extension lines."""
        lines = [self.origin, str(self.size), base64.b64encode(self.digest).decode()]
        if self.at is not None:
            lines.append(f"time {self.at.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}")
        if self.pruned is not None:
            lines.append(f"pruned {self.pruned.last_seq} {base64.b64encode(self.pruned.digest).decode()}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a head says beside the end: the records up to this one, which has this hash, were removed on purpose."""

    last_seq: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with the name it signs under; written `name+hash+base64`, as signed-note tools take it."""

    name: str
    key: bytes

    @property
    def key_hash(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+{base64.b64encode(_ED25519 + self.key).decode()}"

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Read a verifier key. Raises: JournalError `head.bad-key`."""
        name, _, rest = text.strip().partition("+")
        stated, _, encoded = rest.partition("+")
        verifier = cls(name, _key_bytes(encoded))
        if _NAME.fullmatch(name) is None or verifier.key_hash.hex() != stated:
            raise JournalError("head.bad-key", "the verifier key's hash does not fit its name and key")
        return verifier


class Signer:
    """A private key and its name. The file is `PRIVATE+KEY+name+hash+base64`, mode 0600."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        if _NAME.fullmatch(name) is None:
            raise JournalError(
                "head.bad-key", f"{name[:40]!r} is no name for a journal", "such as 'gw.example.org/journal'"
            )
        self._key = key
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.verifier = Verifier(name, public)

    def named(self, name: str) -> "Signer":
        """Return the same key under another name: of several journals of one site each has its own."""
        return Signer(name, self._key)

    @classmethod
    def create(cls, path: Path, name: str) -> "Signer":
        """Make a key and write it to a new file. Raises: JournalError `head.bad-key`, OSError."""
        signer = cls(name, Ed25519PrivateKey.generate())
        seed = signer._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        encoded = base64.b64encode(_ED25519 + seed).decode()
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"PRIVATE+KEY+{name}+{signer.verifier.key_hash.hex()}+{encoded}\n")
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(beside)  # whole or not at all: another gateway may begin at the same moment
        finally:
            beside.unlink()
        return signer

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """Read a key file. Raises: JournalError `head.bad-key`."""
        try:
            if path.stat().st_mode & 0o077:
                raise JournalError("head.bad-key", f"{path} is readable by others", f"chmod 600 {path}")
            text = path.read_text().strip()
        except OSError as exc:
            raise JournalError("head.bad-key", f"{path}: {exc.strerror}") from exc
        if not text.startswith("PRIVATE+KEY+") or text.count("+") < 4:
            raise JournalError("head.bad-key", f"{path} is no signed-note private key")
        name, stated, encoded = text.removeprefix("PRIVATE+KEY+").split("+", 2)
        signer = cls(name, Ed25519PrivateKey.from_private_bytes(_key_bytes(encoded)))
        if signer.verifier.key_hash.hex() != stated:
            raise JournalError("head.bad-key", f"{path}: the key's hash does not fit")
        return signer

    def sign(self, head: Head) -> str:
        """Return a signed note: the checkpoint, an empty line and a signature line."""
        text = head.text()
        signature = base64.b64encode(self.verifier.key_hash + self._key.sign(text.encode())).decode()
        return f"{text}\n\N{EM DASH} {self.verifier.name} {signature}\n"


def open_head(note: str, *verifiers: Verifier) -> Head:
    """Check a signed head and read it; one of several keys is enough, where the key was changed.

    Raises:
        JournalError: `head.bad-signature` when no signature by those keys is good, `head.other-journal`,
            `head.malformed`.
    """
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or len(note) > _LARGEST_NOTE:
        raise JournalError("head.malformed", "not a signed note")
    text += "\n"
    for line in signatures.splitlines():
        dash, name, encoded = [*line.split(" "), "", "", ""][:3]
        for verifier in verifiers:
            if dash == "\N{EM DASH}" and name == verifier.name and _is_good(encoded, text, verifier):
                return _of_journal(_parse_head(text), verifier)
    names = " or ".join(sorted({verifier.name for verifier in verifiers}))
    raise JournalError("head.bad-signature", f"the head is not signed by {names}", "was it signed by another key?")


def notes_in(text: str) -> list[str]:
    """Return the notes of a file: each is a body, an empty line and signature lines.

    Raises:
        JournalError: `head.malformed`, where there is none, or where something stands between them.
    """
    text = text.strip("\n") + "\n"
    notes = [match[0] for match in _NOTE.finditer(text)]
    if not notes:
        raise JournalError("head.malformed", "no signed head in this file")
    if left := _NOTE.sub("", text).strip():
        line = left.splitlines()[0]
        raise JournalError("head.malformed", f"this stands between the heads and is none: {line[:60]!r}")
    return notes


def last_note(text: str) -> str:
    """Return the last of several notes in a file. Raises: JournalError `head.malformed`."""
    return notes_in(text)[-1]


def _of_journal(head: Head, verifier: Verifier) -> Head:
    if head.origin != verifier.name:
        message = f"the head is of {head.origin[:80]!r}, and its key is the one of {verifier.name}"
        raise JournalError("head.other-journal", message)
    return head


def _is_good(encoded: str, text: str, verifier: Verifier) -> bool:
    try:
        signature = base64.b64decode(encoded, validate=True)
        if signature[:4] != verifier.key_hash:
            return False
        Ed25519PublicKey.from_public_bytes(verifier.key).verify(signature[4:], text.encode())
    except (binascii.Error, InvalidSignature, ValueError):
        return False
    return True


def _parse_head(text: str) -> Head:
    lines = text.splitlines()
    try:
        origin, size, digest = lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True)
        extensions = dict(line.split(" ", 1) for line in lines[3:] if " " in line)
        at = datetime.fromisoformat(extensions["time"]) if "time" in extensions else None
        pruned = _parse_pruned(extensions["pruned"]) if "pruned" in extensions else None
    except (IndexError, ValueError) as exc:
        raise JournalError("head.malformed", "the head is no checkpoint") from exc
    if len(digest) != 32 or size < 0:
        raise JournalError("head.malformed", "the head is no checkpoint of this journal's form")
    return Head(origin, size, digest, at, pruned)


def _parse_pruned(text: str) -> Pruned:
    number, encoded = text.split(" ")
    return Pruned(int(number), base64.b64decode(encoded, validate=True))


def _key_bytes(encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error as exc:
        raise JournalError("head.bad-key", "the key is not base64") from exc
    if len(key) != 33 or key[:1] != _ED25519:
        raise JournalError("head.bad-key", "not an Ed25519 key in signed-note form")
    return key[1:]
