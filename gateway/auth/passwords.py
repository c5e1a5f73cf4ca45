"""Makes, hashes and verifies notebook passwords. Where the hash is kept is the caller's business."""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import bcrypt

from gateway.errors import AuthError

DEFAULT_COST: Final = 12
"""bcrypt's work factor: about 0.2 s; each step doubles it."""
PASSWORD_MAX_BYTES: Final = 72
"""bcrypt ignores everything after this many bytes (and some versions refuse it)."""
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is mistaken when read aloud or copied by hand
_GROUPS, _GROUP_LENGTH = 4, 5  # 20 characters of 31: 99 bits


def make_password() -> str:
    """Return a fresh password of 99 bits, such as `k7mqd-x2nfa-9wthc-rvbe4`."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_LENGTH)) for _ in range(_GROUPS))


def hash_password(password: str, cost: int = DEFAULT_COST) -> str:
    """Return the bcrypt hash of a password.

    Raises:
        AuthError: `password.empty`; `password.too-long`, for more than 72 bytes of UTF-8; `password.nul`.
    """
    return bcrypt.hashpw(_checked(password), bcrypt.gensalt(cost)).decode()


def begin_hash(password: str, cost: int = DEFAULT_COST) -> Callable[[], str]:
    """Hash on a thread, beside what the caller does meanwhile; calling what is returned waits for the hash.

    Raises:
        AuthError: at once, as `hash_password`.
    """
    encoded = _checked(password)
    thread = ThreadPoolExecutor(1)
    hashed = thread.submit(lambda: bcrypt.hashpw(encoded, bcrypt.gensalt(cost)).decode())
    thread.shutdown(wait=False)
    return hashed.result


def _checked(password: str) -> bytes:
    encoded = password.encode()
    if not encoded:
        raise AuthError("password.empty", "the password is empty", "leave it out and devgw makes one")
    if len(encoded) > PASSWORD_MAX_BYTES:
        raise AuthError(
            "password.too-long",
            f"the password has {len(encoded)} bytes and bcrypt takes {PASSWORD_MAX_BYTES}",
            "use a shorter one; 20 random characters are plenty",
        )
    if b"\0" in encoded:
        raise AuthError("password.nul", "the password holds a NUL byte", "use printable characters")
    return encoded


def verify_password(password: str, hashed: str) -> bool:
    """Say whether a password belongs to a hash, in the same time for a wrong password as for a right one."""
    encoded = password.encode()
    if not encoded or len(encoded) > PASSWORD_MAX_BYTES or b"\0" in encoded:
        return False
    try:
        return bcrypt.checkpw(encoded, hashed.encode())
    except ValueError:
        return False
