"""What is and is not a public key."""

import subprocess
from pathlib import Path

import pytest

from gateway.auth.keys import parse_public_key
from gateway.errors import AuthError

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
SK = (
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0d"
    "h2l9GKJlAAAABHNzaDo="
)
DSA = "ssh-dss AAAAB3NzaC1kc3MAAACBAP"


def generate(tmp_path: Path, *options: str) -> tuple[str, str]:
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-C", "someone", "-f", str(tmp_path / "k"), *options], check=True, timeout=60
    )
    return (tmp_path / "k").read_text(), (tmp_path / "k.pub").read_text()


@pytest.mark.parametrize(
    ("options", "algorithm", "bits"),
    [
        (["-t", "ed25519"], "ssh-ed25519", 256),
        (["-t", "ecdsa", "-b", "521"], "ecdsa-sha2-nistp521", 521),
        (["-t", "rsa", "-b", "3072"], "ssh-rsa", 3072),
    ],
)
def test_a_key_is_read_as_openssh_reads_it(tmp_path: Path, options: list[str], algorithm: str, bits: int) -> None:
    """Type, size, comment and fingerprint are ssh-keygen's."""
    _, public = generate(tmp_path, *options)
    key = parse_public_key(public)
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(tmp_path / "k.pub")], capture_output=True, check=True, timeout=60
    )
    assert [str(key.bits), key.fingerprint] == shown.stdout.decode().split()[:2]
    assert (key.algorithm, key.bits, key.comment) == (algorithm, bits, "someone")
    assert key.line == " ".join(public.split()[:2])


def test_a_hardware_key_is_accepted() -> None:
    """sk- keys need no special treatment here; a policy may require them."""
    assert parse_public_key(SK).algorithm == "sk-ssh-ed25519@openssh.com"


def test_rfc4716_form_is_accepted(tmp_path: Path) -> None:
    """The form PuTTY exports is the same key."""
    _, public = generate(tmp_path, "-t", "ed25519")
    exported = subprocess.run(
        ["ssh-keygen", "-e", "-f", str(tmp_path / "k.pub")], capture_output=True, check=True, timeout=60
    )
    assert parse_public_key(exported.stdout.decode()).line == parse_public_key(public).line


@pytest.mark.attack("A8", "a DSA key, a certificate, a line with options: refused when it is added")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "key.none"),
        ("# only a comment\n\n", "key.none"),
        (f"{ED25519}\n{OTHER}\n", "key.several"),
        ("root:x:0:0:root:/root:/bin/bash\nbin:x:2:2::/bin:\n", "key.unparsable"),
        ("hello", "key.unparsable"),
        ("ssh-ed25519", "key.unparsable"),
        ("ssh-ed25519 AAAA!!!!", "key.unparsable"),
        (ED25519[:-6], "key.unparsable"),
        ("ssh-rsa " + ED25519.split()[1], "key.unparsable"),  # the type of the line is not that of the data
        (DSA, "key.dsa"),
        ("ssh-ed448 AAAA", "key.unknown-algorithm"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "key.certificate"),
        (f"restrict {ED25519}", "key.options"),
        (f'from="10.0.0.0/8",command="ls -l" {ED25519}', "key.options"),
        (f'expiry-time="20300101" {ED25519}', "key.options"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\n", "key.private"),
    ],
)
def test_anything_else_is_refused_with_one_reason(text: str, code: str) -> None:
    """One code each, and a hint that can be followed."""
    with pytest.raises(AuthError) as refused:
        parse_public_key(text)
    assert refused.value.code == code
    assert refused.value.hint


def test_the_option_is_named() -> None:
    """A refused option is named, so that it can be moved to the policy."""
    with pytest.raises(AuthError, match="'expiry-time'"):
        parse_public_key(f'expiry-time="20300101" {ED25519}')


def test_a_private_key_is_refused_without_repeating_it(tmp_path: Path) -> None:
    """The most dangerous mistake gets its own words."""
    private, _ = generate(tmp_path, "-t", "ed25519")
    with pytest.raises(AuthError) as refused:
        parse_public_key(private)
    assert refused.value.code == "key.private"
    assert private.splitlines()[1] not in str(refused.value)


@pytest.mark.attack("A7", "an RSA key of 2048 bits")
def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    """2048 bits are too few."""
    _, public = generate(tmp_path, "-t", "rsa", "-b", "2048")
    with pytest.raises(AuthError, match="2048 bits and 3072"):
        parse_public_key(public)


@pytest.mark.attack("B3", "escape sequences in the comment of a key")
def test_a_comment_is_made_printable() -> None:
    """Escape sequences do not reach an administrator's terminal."""
    assert parse_public_key(f"{ED25519} a\x1b[31mb").comment == "a?[31mb"
