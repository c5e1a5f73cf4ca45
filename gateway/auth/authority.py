"""Key material: the user CA that environments trust, and host keys. Minting certificates is the work of `ssh`."""

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
        self.host_keys = (directory / "ssh_host_ed25519_key",)

    def ensure(self) -> None:
        """Make the keys that are not there yet. Raises: AuthError, as `ensure_key`."""
        self.host_key_line()
        self.user_ca_line()

    def user_ca_line(self) -> str:
        """Return the public half of the user CA. Raises: AuthError, as `ensure_key`."""
        return ensure_key(self.user_ca_key, "devgw user CA")

    def host_key_line(self) -> str:
        """Return the public half of the server's host key. Raises: AuthError, as `ensure_key`."""
        return ensure_key(self.host_keys[0], "devgw host key")
