"""The certificates with which the gateway enters environments."""

import subprocess
from pathlib import Path

import pytest

from gateway.auth.authority import ensure_key
from gateway.errors import AuthError
from gateway.model import UserName
from gateway.ssh.upstream.certificates import CertificateAuthority


def test_a_certificate_is_for_one_user_and_minutes(tmp_path: Path) -> None:
    """ssh-keygen reads it: one principal, a short validity, no X11 and no agent unless asked for."""
    ca_line = ensure_key(tmp_path / "ca", "")
    authority = CertificateAuthority(tmp_path / "ca")
    _, certificate = authority.mint(UserName("alice"), "devgw alice", 300)
    (tmp_path / "c-cert.pub").write_bytes(certificate.export_certificate())
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(tmp_path / "c-cert.pub")], capture_output=True, check=True, timeout=60
    )
    text = shown.stdout.decode()
    (tmp_path / "ca.pub").write_text(ca_line)
    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", str(tmp_path / "ca.pub")], capture_output=True, check=True, timeout=60
    )
    assert fingerprint.stdout.decode().split()[1] in text
    assert text.split("Principals:")[1].split("Critical")[0].split() == ["alice"]
    assert "permit-pty" in text
    assert "permit-X11-forwarding" not in text
    assert "permit-agent-forwarding" not in text
    assert "forever" not in text
    assert 300 <= _valid_seconds(text) <= 360 + 60


def _valid_seconds(text: str) -> float:
    from datetime import datetime

    words = text.split("Valid: from ")[1].split()
    return (datetime.fromisoformat(words[2]) - datetime.fromisoformat(words[0])).total_seconds()


def test_no_two_certificates_share_key_or_serial(tmp_path: Path) -> None:
    """Each connection has its own."""
    ensure_key(tmp_path / "ca", "")
    authority = CertificateAuthority(tmp_path / "ca")
    minted = [authority.mint(UserName("alice"), "x", 300, agent=True)[0].public_data for _ in range(5)]
    assert len(set(minted)) == 5


def test_an_exposed_authority_is_not_used(tmp_path: Path) -> None:
    """Whoever reads it can enter every environment."""
    ensure_key(tmp_path / "ca", "")
    (tmp_path / "ca").chmod(0o644)
    with pytest.raises(AuthError, match="others may read"):
        CertificateAuthority(tmp_path / "ca")
