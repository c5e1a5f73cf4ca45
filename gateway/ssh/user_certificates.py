"""Users' certificates (OpenSSH PROTOCOL.certkeys) in the policy's words. Whether one is accepted, the policy says.

asyncssh has checked the CA's signature when it decoded one; which algorithm made it is checked here.
"""

from datetime import UTC, datetime

from asyncssh.packet import PacketDecodeError, SSHPacket, String
from asyncssh.public_key import CERT_TYPE_USER, SSHOpenSSHCertificate

from gateway.auth.keys import public_key_of
from gateway.model import PublicKey
from gateway.ssh.transport.algorithms import SIGNATURES
from policies.requests import Certificate

_SIGNATURES = frozenset(name.encode() for name in SIGNATURES)
_CRITICAL = frozenset({"force-command"})
"""Critical options that asyncssh decodes, other than source-address; it refuses those it does not know."""
_FOREVER = datetime(9999, 12, 31, tzinfo=UTC)


def read_certificate(certificate: SSHOpenSSHCertificate) -> tuple[Certificate, PublicKey] | None:
    """Return what a user certificate says and the key it certifies; None for a host's, or one signed with SHA-1."""
    if certificate._cert_type != CERT_TYPE_USER or not _is_well_signed(certificate):  # noqa: SLF001 - asyncssh has no other way to these fields
        return None
    options = certificate.options
    said = Certificate(
        ca_fingerprint=certificate.signing_key.get_fingerprint(),
        key_id=certificate._key_id[:256],  # noqa: SLF001 - as above
        serial=certificate._serial,  # noqa: SLF001 - as above
        principals=tuple(certificate.principals),
        valid_after=_moment(certificate._valid_after),  # noqa: SLF001 - as above
        valid_before=_moment(certificate._valid_before),  # noqa: SLF001 - as above
        source_addresses=tuple(str(network) for network in options.get("source-address", ())),  # type: ignore[attr-defined]  # asyncssh types every option as object
        critical_options=tuple(sorted(_CRITICAL & set(options))),
    )
    return said, public_key_of(certificate.key, certificate.algorithm.decode(), said.key_id)


def _is_well_signed(certificate: SSHOpenSSHCertificate) -> bool:
    """Look at the last field of the certificate: the signature, which begins with its algorithm's name."""
    _, found, signature = certificate.public_data.rpartition(String(certificate.signing_key.public_data))
    if not found:
        return False
    try:
        return SSHPacket(SSHPacket(signature).get_string()).get_string() in _SIGNATURES
    except PacketDecodeError:
        return False


def _moment(seconds: int) -> datetime:
    """Return a time of PROTOCOL.certkeys: seconds since the epoch, all bits set for ever."""
    return _FOREVER if seconds >= _FOREVER.timestamp() else datetime.fromtimestamp(seconds, UTC)
