"""Key material: the user CA that environments trust, and host keys. Minting certificates is the work of `ssh`."""

import base64
import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from gateway.errors import AuthError

_HOST_KEY = "devgw host key"


def make_host_key(comment: str = "") -> tuple[str, str]:
    """Return a fresh ed25519 key as (private key in OpenSSH's form, public key line)."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return private, _public_line(key, comment)


def ensure_key(path: Path, comment: str) -> str:
    """Load the private key at `path`, or make it there with mode 0600; return its public line.

    Raises:
        AuthError: `authority.exposed`, when group or others may read it; `authority.unreadable`; `authority.bad-key`.
    """
    if not path.exists():
        _write_private(path, make_host_key(comment)[0])
    return load_public_line(path, comment)


def load_public_line(path: Path, comment: str = "") -> str:
    """Return the public line of the private key at `path`. Raises: AuthError, as `ensure_key`."""
    _refuse_exposed(path)
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as exc:
        raise AuthError("authority.unreadable", f"{path} cannot be read: {exc.strerror}", "run 'devgw init'") from exc
    except ValueError as exc:
        raise AuthError("authority.bad-key", f"{path} is not an OpenSSH private key", "restore it from backup") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise AuthError("authority.bad-key", f"{path} is not an ed25519 key", "make one with 'ssh-keygen -t ed25519'")
    return _public_line(key, comment)


def _public_line(key: Ed25519PrivateKey, comment: str) -> str:
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{line} {comment}".strip()


def _write_private(path: Path, private: str) -> None:
    """Create the file with its final mode: at no moment may others read it. Two starts at once make one key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(private)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(beside)
    finally:
        beside.unlink()


def _refuse_exposed(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise AuthError("authority.unreadable", f"{path} cannot be read: {exc.strerror}", "run 'devgw init'") from exc
    if stat.S_IMODE(mode) & 0o077:
        raise AuthError(
            "authority.exposed",
            f"others may read the private key {path} (mode {stat.S_IMODE(mode):04o})",
            f"chmod 600 {path}; if it was copied, make a new one",
        )


class Authority:
    """The gateway's own keys in one directory, made when they are first needed."""

    def __init__(self, directory: Path) -> None:
        self.user_ca_key = directory / "user_ca"
        host_key = directory / "ssh_host_ed25519_key"
        self.host_keys = (host_key, host_key.with_suffix(".next"))
        """The one in use, and the one that clients learn before it is; the second is there during a rotation alone."""

    def ensure(self) -> None:
        """Make the keys that are not there yet. Raises: AuthError, as `ensure_key`."""
        self.host_key_line()
        self.user_ca_line()

    def user_ca_line(self) -> str:
        """Return the public half of the user CA. Raises: AuthError, as `ensure_key`."""
        return ensure_key(self.user_ca_key, "devgw user CA")

    def host_key_line(self) -> str:
        """Return the public half of the server's host key. Raises: AuthError, as `ensure_key`."""
        return ensure_key(self.host_keys[0], _HOST_KEY)

    def host_key_fingerprint(self) -> str:
        """Return the fingerprint of the key in use, empty where there is none or it cannot be read: makes nothing."""
        try:
            return fingerprint_of_line(load_public_line(self.host_keys[0]))
        except AuthError:
            return ""

    def next_host_key_line(self) -> str | None:
        """Return the public half of the key that is announced, if there is one. Raises: AuthError, as `ensure_key`."""
        return load_public_line(self.host_keys[1], _HOST_KEY) if self.host_keys[1].exists() else None

    def announce_host_key(self) -> str:
        """Make the next host key; return its public half. Raises: AuthError, as `ensure_key`."""
        return ensure_key(self.host_keys[1], _HOST_KEY)

    def use_next_host_key(self) -> None:
        """Put the announced key in the place of the one in use, which is kept as `.previous`. Raises: OSError."""
        current, following = self.host_keys
        previous = current.with_suffix(".previous")
        previous.unlink(missing_ok=True)
        previous.hardlink_to(current)
        following.replace(current)


def fingerprint_of_line(line: str) -> str:
    """Return the SHA-256 fingerprint of a public key line, as ssh shows it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
