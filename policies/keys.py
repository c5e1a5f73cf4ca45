"""Which public keys and certificates a policy accepts; algorithm names are those of OpenSSH and RFC 4253, 8332."""

import base64
import binascii
import hashlib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from policies.document import Table
from policies.quantities import Duration

KeyType = Literal["ed25519", "ecdsa", "rsa", "sk-ed25519", "sk-ecdsa"]
SAFE_KEY_TYPES: tuple[KeyType, ...] = ("ed25519", "sk-ed25519", "ecdsa", "sk-ecdsa", "rsa")
HARDWARE_KEY_TYPES: frozenset[str] = frozenset({"sk-ed25519", "sk-ecdsa"})

_TYPES: dict[str, KeyType] = {
    "ssh-ed25519": "ed25519",
    "sk-ssh-ed25519@openssh.com": "sk-ed25519",
    "ecdsa-sha2-nistp256": "ecdsa",
    "ecdsa-sha2-nistp384": "ecdsa",
    "ecdsa-sha2-nistp521": "ecdsa",
    "sk-ecdsa-sha2-nistp256@openssh.com": "sk-ecdsa",
    "ssh-rsa": "rsa",
    "rsa-sha2-256": "rsa",
    "rsa-sha2-512": "rsa",
}
_CERTIFICATE = re.compile(r"(.+)-cert-v0[01](@openssh\.com)")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def key_type_of(algorithm: str) -> KeyType | None:
    """Return the policy's word for an OpenSSH algorithm, certificates included; None for DSA and anything unknown."""
    match = _CERTIFICATE.fullmatch(algorithm)
    if match is None:
        return _TYPES.get(algorithm)
    return _TYPES.get(match[1]) or _TYPES.get(match[1] + match[2])


def check_fingerprint(text: str) -> str:
    """Accept the form `ssh-keygen -l` prints. Raises: ValueError."""
    if _FINGERPRINT.fullmatch(text) is None:
        raise ValueError("a fingerprint is 'SHA256:' and 43 base64 characters, as 'ssh-keygen -lf' prints it")
    return text


def check_public_key(line: str) -> str:
    """Accept one OpenSSH public key line and keep its type and base64. Raises: ValueError."""
    words = line.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error):
        raise ValueError("a public key is one line, 'ssh-ed25519 AAAA...'") from None
    name_length = int.from_bytes(blob[:4])
    if blob[4 : 4 + name_length] != words[0].encode() or key_type_of(words[0]) is None:
        raise ValueError(f"{words[0][:40]!r} is no usable key type, or the line names another type than it holds")
    return f"{words[0]} {words[1]}"


Fingerprint = Annotated[str, AfterValidator(check_fingerprint)]
PublicKeyLine = Annotated[str, AfterValidator(check_public_key)]


class CertificateAuthority(Table):
    """A CA whose user certificates count as keys (sshd's TrustedUserCAKeys), with what it has revoked (RevokedKeys)."""

    public_key: PublicKeyLine
    """The CA's public key line."""
    max_validity: Duration = 86_400
    """The longest span a certificate may be valid for. Prudent: a working day; no revocation is as sure as time."""
    revoked_serials: tuple[Annotated[int, Field(ge=0, lt=2**64)], ...] = ()
    """Serial numbers that are refused from now on."""
    revoked_key_ids: tuple[str, ...] = ()
    """Key ids (`ssh-keygen -I`) that are refused from now on."""

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.public_key.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
