"""The cluster's own certificate authority, who is who by token, and a kubeconfig for each."""

import datetime as dt
import ipaddress
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

_DAYS = dt.timedelta(days=2)


@dataclass
class Keys:
    """Files under a directory. `url` is the API server's."""

    directory: Path
    url: str
    addresses: tuple[str, ...]
    _tokens: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "devgw-tests")])
        self._write_certificate("ca", self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        ))  # fmt: skip
        self._issue("apiserver", "kube-apiserver", "", self.addresses)
        self._issue("kubelet-client", "kube-apiserver-kubelet-client", "system:masters", ())
        account = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._write_key("service-accounts", account)
        public = account.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.path("service-accounts.pub").write_bytes(public)

    def path(self, name: str) -> Path:
        return self.directory / name

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(now - _DAYS).not_valid_after(now + _DAYS)
        )  # fmt: skip

    def _issue(self, file: str, name: str, group: str, addresses: tuple[str, ...]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if group:
            names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        builder = self._builder(x509.Name(names), key.public_key())
        if addresses:
            known = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            names_of_it = x509.SubjectAlternativeName([x509.DNSName("localhost"), *known])
            builder = builder.add_extension(names_of_it, critical=False)
        self._write_key(file, key)
        self._write_certificate(file, builder)

    def _write_certificate(self, file: str, builder: x509.CertificateBuilder) -> None:
        signed = builder.sign(self._key, hashes.SHA256())
        self.path(f"{file}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def _write_key(self, file: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        path = self.path(f"{file}.key")
        path.touch(0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def kubeconfig(self, user: str, group: str) -> Path:
        """Write the file with which a user of a group talks to the API server. Before `write_tokens`."""
        token = secrets.token_hex(16)
        self._tokens[token] = (user, group)
        path = self.path(f"{user.replace(':', '-')}.kubeconfig")
        path.touch(0o600)
        cluster = {"server": self.url, "certificate-authority": str(self.path("ca.crt"))}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
            "current-context": "tests",
        }
        path.write_text(json.dumps(content))
        return path

    def write_tokens(self) -> Path:
        """Write who has which token, for the API server."""
        path = self.path("tokens.csv")
        path.touch(0o600)
        path.write_text("".join(f'{token},{user},{user},"{group}"\n' for token, (user, group) in self._tokens.items()))
        return path
