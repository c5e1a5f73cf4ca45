"""Reads users' public keys and says in one sentence why a text is not one. Whether a key may log in is policy."""

import base64
import binascii
import hashlib
import re

import asyncssh
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.errors import AuthError
from gateway.model import Fingerprint, PublicKey

RSA_BITS_MIN = 3072
ALGORITHMS = frozenset(
    {
        "ssh-ed25519",
        "sk-ssh-ed25519@openssh.com",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "ssh-rsa",
    }
)
_ALGORITHM_WORD = re.compile(r"(?:ssh-|sk-|ecdsa-|webauthn-|rsa-)[a-z0-9@.-]+")
_KEY_IN_A_LINE = re.compile(r"(?:^|[\s\"])(?:ssh|sk|ecdsa)-\S+\s+AAAA")
_OPTION = re.compile(r"[A-Za-z0-9-]+")
_MAKE_ONE = "make one with 'ssh-keygen -t ed25519' and give the .pub file"
_ECDSA_BITS = {"nistp256": 256, "nistp384": 384, "nistp521": 521}


def parse_public_key(text: str) -> PublicKey:
    """Read one public key in OpenSSH's one-line form (or RFC 4716's).

    Raises:
        AuthError: `key.private`, `key.none`, `key.several`, `key.options`, `key.certificate`, `key.dsa`,
            `key.unknown-algorithm`, `key.rsa-too-short`, `key.unparsable`.
    """
    if "PRIVATE KEY" in text or text.lstrip().startswith("PuTTY-User-Key-File"):
        raise AuthError("key.private", "this is a private key; it must never leave its owner", "give the .pub file")
    line = _only_line(text)
    algorithm, blob, comment = _split(line)
    _refuse_algorithm(algorithm)
    key = _decode(algorithm, blob)
    bits = _bits(key, algorithm)
    if algorithm == "ssh-rsa" and bits < RSA_BITS_MIN:
        raise AuthError("key.rsa-too-short", f"the RSA key has {bits} bits and {RSA_BITS_MIN} are required", _MAKE_ONE)
    return PublicKey(fingerprint_of(key.public_data), algorithm, bits, f"{algorithm} {blob}", _printable(comment))


def public_key_of(key: asyncssh.SSHKey, algorithm: str, comment: str) -> PublicKey:
    """Describe a key that came in another form, such as in a certificate of that algorithm; it has no line."""
    return PublicKey(fingerprint_of(key.public_data), algorithm, _bits(key, algorithm), "", _printable(comment))


def fingerprint_of(blob: bytes) -> Fingerprint:
    """Return the SHA256 fingerprint of a key's wire form (RFC 4253 §6.6) as OpenSSH writes it."""
    digest = hashlib.sha256(blob).digest()
    return Fingerprint("SHA256:" + base64.b64encode(digest).decode().rstrip("="))


def _only_line(text: str) -> str:
    if text.lstrip().startswith("---- BEGIN SSH2 PUBLIC KEY"):
        return _from_rfc4716(text)
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise AuthError("key.none", "there is no key in it", _MAKE_ONE)
    if len(lines) == 1:
        return lines[0]
    keys = sum(_KEY_IN_A_LINE.search(line) is not None for line in lines)
    if keys > 1:
        raise AuthError("key.several", f"there are {keys} keys in it", "add one key at a time")
    raise AuthError("key.unparsable", "this is not a public key", _MAKE_ONE)


def _from_rfc4716(text: str) -> str:
    try:
        return asyncssh.import_public_key(text.strip()).export_public_key("openssh").decode().strip()
    except (asyncssh.KeyImportError, ValueError) as exc:
        raise AuthError("key.unparsable", "this is not a public key", _MAKE_ONE) from exc


def _split(line: str) -> tuple[str, str, str]:
    words = line.split(None, 2)
    if _ALGORITHM_WORD.fullmatch(words[0]) is None:
        _refuse_options(line)
        raise AuthError("key.unparsable", "this is not a public key", _MAKE_ONE)
    if len(words) < 2:
        raise AuthError("key.unparsable", "the key has no data after its type", _MAKE_ONE)
    return words[0], words[1], words[2] if len(words) > 2 else ""


def _refuse_options(line: str) -> None:
    """Name the first authorized_keys option, where a key follows it: what a key may do is said by policy alone."""
    option = _OPTION.match(line)
    if option and _KEY_IN_A_LINE.search(line):
        raise AuthError(
            "key.options",
            f"the key line carries the option {option.group()[:40]!r}; what a key may do is said by the policy",
            "remove everything before the key type",
        )


def _refuse_algorithm(algorithm: str) -> None:
    if "-cert-v0" in algorithm:
        raise AuthError(
            "key.certificate", "this is a certificate, not a public key", "give the .pub file without '-cert'"
        )
    if algorithm == "ssh-dss":
        raise AuthError("key.dsa", "DSA keys are not accepted", _MAKE_ONE)
    if algorithm not in ALGORITHMS:
        raise AuthError("key.unknown-algorithm", f"keys of type {algorithm[:40]!r} are not accepted", _MAKE_ONE)


def _decode(algorithm: str, blob: str) -> asyncssh.SSHKey:
    try:
        data = base64.b64decode(blob, validate=True)
        key = asyncssh.import_public_key(f"{algorithm} {blob}")
    except (asyncssh.KeyImportError, binascii.Error, ValueError) as exc:
        raise AuthError("key.unparsable", "the key's data is damaged", "copy the .pub file whole") from exc
    if key.public_data != data:
        raise AuthError("key.unparsable", "the key's data is not in its one canonical form", "copy the .pub file whole")
    return key


def _bits(key: asyncssh.SSHKey, algorithm: str) -> int:
    for curve, bits in _ECDSA_BITS.items():
        if curve in algorithm:
            return bits
    return key.pyca_key.key_size if isinstance(key.pyca_key, RSAPublicKey) else 256


def _printable(comment: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in comment)[:200]
