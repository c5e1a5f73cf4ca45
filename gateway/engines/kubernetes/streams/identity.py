"""A key and a certificate of its own for one side of one pod's streams; they live as long as the process."""

from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "devgw")])
_BEGIN, _END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""A node's clock may be anything; what ends a certificate is the end of its pod or of the gateway."""


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM text. `private` is the key and the certificate."""

    private: str
    certificate: str


def make_identity() -> Identity:
    """Make a key (P-256) and the certificate that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    signed = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .sign(key, hashes.SHA256())
    )
    certificate = signed.public_bytes(Encoding.PEM).decode()
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Identity(written + certificate, certificate)
