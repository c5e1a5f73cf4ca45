"""Signed heads: made, read back, refused when anything about them was changed."""

import base64
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.audit.heads import Head, Signer, Verifier, last_note, open_head
from gateway.errors import JournalError

HEAD = Head("gw.example.org/journal", 42, bytes(range(32)), datetime(2026, 5, 3, 12, tzinfo=UTC))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.create(tmp_path / "head.key", "gw.example.org/journal")


def test_a_head_is_a_checkpoint_in_a_signed_note(signer: Signer) -> None:
    """Origin, size, hash and extensions (tlog-checkpoint); empty line, dash, name, base64 (signed-note)."""
    lines = signer.sign(HEAD).split("\n")
    digest = base64.b64encode(HEAD.digest).decode()
    assert lines[:5] == ["gw.example.org/journal", "42", digest, "time 2026-05-03T12:00:00Z", ""]
    assert lines[5].startswith("\N{EM DASH} gw.example.org/journal ")
    assert base64.b64decode(lines[5].split(" ")[2])[:4] == signer.verifier.key_hash


def test_a_signed_head_is_read_back(signer: Signer) -> None:
    assert open_head(signer.sign(HEAD), Verifier.parse(str(signer.verifier))) == HEAD


def test_a_note_of_another_implementation_is_read() -> None:
    """The example of the signed-note specification and its Go package, with its published key."""
    verifier = Verifier.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )  # fmt: skip
    signature = (
        "\N{EM DASH} PeterNeumann "
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    with pytest.raises(JournalError) as caught:
        open_head(text + "\n" + signature, verifier)
    assert caught.value.code == "head.malformed"  # the signature is good; the text is no checkpoint


@pytest.mark.attack("H2", "an exported head, changed")
@pytest.mark.parametrize("change", [("42", "43"), ("12:00", "13:00"), ("gw.example", "gx.example"), ("AAEC", "AAED")])
def test_a_changed_head_is_refused(signer: Signer, change: tuple[str, str]) -> None:
    with pytest.raises(JournalError) as caught:
        open_head(signer.sign(HEAD).replace(*change, 1), signer.verifier)
    assert caught.value.code == "head.bad-signature"


@pytest.mark.attack("H2", "a head signed by another key of the same name")
def test_a_swapped_key_is_refused(signer: Signer, tmp_path: Path) -> None:
    """Another key under the same name signs nothing that this verifier accepts."""
    other = Signer.create(tmp_path / "other.key", "gw.example.org/journal")
    with pytest.raises(JournalError) as caught:
        open_head(other.sign(HEAD), signer.verifier)
    assert caught.value.code == "head.bad-signature"


def test_the_key_file_is_private_and_comes_back(signer: Signer, tmp_path: Path) -> None:
    path = tmp_path / "head.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(Signer.load(path).verifier) == str(signer.verifier)
    path.chmod(0o640)
    with pytest.raises(JournalError, match="readable by others"):
        Signer.load(path)


@pytest.mark.parametrize("text", ["", "x", "a+b+c", "name+00000000+AQ==", "PRIVATE+KEY+a+b+c"])
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(JournalError):
        Verifier.parse(text)


def test_the_last_note_of_a_file_is_found(signer: Signer) -> None:
    later = Head(HEAD.origin, 50, HEAD.digest)
    assert open_head(last_note(signer.sign(HEAD) + "\n" + signer.sign(later)), signer.verifier) == later
