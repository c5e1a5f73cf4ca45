"""Mints the short-lived certificates with which the gateway logs in to environments (OpenSSH PROTOCOL.certkeys)."""

import secrets
import time
from pathlib import Path

import asyncssh

from gateway.auth.authority import load_public_line
from gateway.model import UserName

CLOCK_SKEW_SECONDS = 60


class CertificateAuthority:
    """The gateway's user CA; environments trust it and nothing else."""

    def __init__(self, private_key: Path) -> None:
        """Load the key. Raises: AuthError, as `gateway.auth.authority.load_public_line`."""
        load_public_line(private_key)
        self._key = asyncssh.read_private_key(private_key)

    def mint(
        self, user: UserName, key_id: str, valid_seconds: int, *, agent: bool = False
    ) -> tuple[asyncssh.SSHKey, asyncssh.SSHCertificate]:
        """Return a fresh key and its certificate, good for this user alone and for minutes."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        now = int(time.time())
        certificate = self._key.generate_user_certificate(
            key.convert_to_public(),
            key_id,
            serial=secrets.randbits(63),
            principals=[user],
            valid_after=now - CLOCK_SKEW_SECONDS,
            valid_before=now + valid_seconds,
            permit_x11_forwarding=False,
            permit_agent_forwarding=agent,
        )
        return key, certificate
