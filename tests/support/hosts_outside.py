"""Hosts outside with names: a package index, a hub of models, and git over ssh, at an address that is public.

They live in the network namespace of `tests.attacks.outside`. The gateway under test finds them by a hosts file of its
own mount namespace, as its administrator could write one: what it makes of an address is as on any day.
"""

import base64
import datetime as dt
import hashlib
import ipaddress
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.attacks.outside import PUBLIC, outside
from tests.support import serve_outside
from tests.support.serve_outside import HUB, STORE

INDEX = "index.example.net"
OTHER = "other.example.net"
"""At the same address as the index, as names behind one front are, and with a certificate of its own."""
PYPI = "pypi.org"
PROJECT = "tinypackage"
_NAMES = (INDEX, OTHER, PYPI, HUB, STORE)
_NAMESPACE = "dgwout"
_WHEEL = f"{PROJECT}-1.0-py3-none-any.whl"


@dataclass(frozen=True)
class HostsOutside:
    """What runs outside; `ca` is the certificate that its own are signed with."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def launcher(self, names: Mapping[str, str]) -> tuple[str, ...]:
        """Return a command that gives the one behind it these names, and no other process of the host."""
        hosts = self.folder / f"hosts-{len(list(self.folder.glob('hosts-*')))}"
        known = {"localhost": "127.0.0.1", **dict.fromkeys(_NAMES, PUBLIC), **names}
        hosts.write_text("".join(f"{address} {name}\n" for name, address in known.items()))
        script = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(hosts))

    def add_model(self, files: Mapping[str, bytes]) -> None:
        """Have the hub give these files of its one model."""
        for name, data in files.items():
            (self.folder / "www" / "hub" / name).write_bytes(data)

    def add_wheels(self, wheels: Iterable[Path]) -> None:
        """Have the index give these wheels too."""
        for wheel in wheels:
            project = self.folder / "www" / "simple" / wheel.name.partition("-")[0].lower().replace("_", "-")
            project.mkdir(exist_ok=True)
            shutil.copy(wheel, project)
            (project / "index.html").write_text(f'<!DOCTYPE html><a href="{wheel.name}">{wheel.name}</a>\n')


@contextmanager
def hosts_outside(folder: Path) -> Iterator[HostsOutside]:
    """Run them. Needs root."""
    found = HostsOutside(folder)
    _make_certificates(folder)
    _make_index(folder / "www")
    (folder / "www" / "hub").mkdir()
    with outside(), _inside_namespace([sys.executable, serve_outside.__file__, str(folder), PUBLIC]):
        yield found


@contextmanager
def _inside_namespace(command: list[str]) -> Iterator[None]:
    entered = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", _NAMESPACE, *command]
    server = subprocess.Popen(entered, stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"listening\n"
        yield
    finally:
        server.kill()
        server.wait(10)
        server.stdout.close()


@contextmanager
def git_over_ssh(hosts: HostsOutside, port: int = 22) -> Iterator[Path]:
    """Run an sshd with a repository at `/repository`; yield the private key that may read it."""
    folder = hosts.folder
    for name in ("host_key", "client_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    repository = folder / "repository"
    _run("git", "init", "-q", str(repository))
    (repository / "read.me").write_text("cloned by name\n")
    author = ("-c", "user.name=test", "-c", "user.email=test@example.net")
    _run("git", "-C", str(repository), "add", "read.me")
    _run("git", "-C", str(repository), *author, "commit", "-q", "-m", "first")
    Path("/run/sshd").mkdir(exist_ok=True)
    settings = {
        "HostKey": folder / "host_key", "AuthorizedKeysFile": folder / "client_key.pub", "StrictModes": "no",
        "PidFile": "none", "PermitRootLogin": "yes", "UsePAM": "no", "ListenAddress": f"{PUBLIC}:{port}",
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    command = ["sh", "-c", 'echo listening; exec "$@"', "sh", "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *options]
    with _inside_namespace(command):
        yield folder / "client_key"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _make_index(www: Path) -> None:
    """Lay out one project as PEP 503 has it, with a wheel that holds one module."""
    project = www / "simple" / PROJECT
    project.mkdir(parents=True)
    information = f"{PROJECT}-1.0.dist-info"
    files = {
        f"{PROJECT}.py": "word = 'by name'\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: 1.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{name},sha256={_digest(text)},{len(text)}" for name, text in files.items()]
    files[f"{information}/RECORD"] = "\n".join([*rows, f"{information}/RECORD,,", ""])
    with zipfile.ZipFile(project / _WHEEL, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    (project / "index.html").write_text(f'<!DOCTYPE html><a href="{_WHEEL}">{_WHEEL}</a>\n')
    (www / "large").write_bytes(bytes(8 << 20))


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _make_certificates(folder: Path) -> None:
    """Make a CA, and one certificate for all names that are served."""
    now = dt.datetime.now(dt.UTC)
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])

    def sign(
        key: ec.EllipticCurvePrivateKey, name: x509.Name, extensions: list[x509.ExtensionType]
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(ca_name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(2))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(ca_key, hashes.SHA256())

    identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = sign(ca_key, ca_name, [x509.BasicConstraints(ca=True, path_length=None), identifier])
    names = [*map(x509.DNSName, _NAMES), x509.IPAddress(ipaddress.ip_address(PUBLIC))]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, INDEX)])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    server = sign(server_key, subject, [x509.SubjectAlternativeName(names), issuer])
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "ca.pem").chmod(0o644)
    private = server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(private + server.public_bytes(pem))
