"""Who is behind a connection: only a holder of the seal can say it, and it arrives as it was said."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.errors import AuthError
from gateway.page.claim import Claim, Seal, read_claim
from policies.requests import Certificate, Subject

SUBJECT = Subject("alice", "192.0.2.7", "ssh-ed25519", 256, "SHA256:abc")
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
CERTIFICATE = Certificate("SHA256:ca", "alice", 7, ("alice",), NOW, NOW, ("192.0.2.0/24",), ())


@pytest.mark.parametrize("certificate", [None, CERTIFICATE])
def test_a_claim_arrives_as_it_was_said(tmp_path: Path, certificate: Certificate | None) -> None:
    said = Claim(Subject("alice", "192.0.2.7", "ssh-ed25519", 256, "SHA256:abc", certificate), "alice+proj", "0a1b")
    line = Seal(tmp_path / "run" / "seal").line(said)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    heard = Seal(tmp_path / "run" / "seal").opened(line.decode())
    assert (heard.subject, heard.environment, heard.connection) == (said.subject, said.environment, said.connection)
    assert read_claim(line.decode()) == heard


def test_each_connection_has_a_secret_of_its_own_that_stays(tmp_path: Path) -> None:
    """A page that is started again takes the cookies that were given before."""
    seal = Seal(tmp_path / "seal")
    secrets = [seal.opened(seal.line(Claim(SUBJECT, "alice", name)).decode()).secret for name in ("a", "b", "a")]
    assert secrets[0] == secrets[2] != secrets[1]
    assert len(secrets[0]) == 64


@pytest.mark.attack("J6", "a claim with another name, seal or form, given to the process with the gateway's rights")
def test_what_is_not_sealed_is_nobodys(tmp_path: Path) -> None:
    seal = Seal(tmp_path / "seal")
    line = seal.line(Claim(SUBJECT, "alice", "0a1b")).decode()
    body, _, mac = line.partition(".")
    other = Seal(tmp_path / "other").line(Claim(Subject("root"), "root", "0a1b")).decode()
    for forged in (other, f"{other.partition('.')[0]}.{mac}", f"{body}.", body, "", ".", "ä.ö", f"x{line}"):
        with pytest.raises(AuthError):
            seal.opened(forged)


@pytest.mark.parametrize("line", ["", "e30=", "bnVsbA==", "W10=", "!!", "eyJzdWJqZWN0IjogN30="])
def test_what_is_no_claim_is_refused(line: str) -> None:
    with pytest.raises(AuthError):
        read_claim(line)


def test_the_seal_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """Several processes come first at once; a link that somebody put there is not followed."""
    file = tmp_path / "seal"
    lines = {Seal(file).line(Claim(SUBJECT, "alice", "0a1b")) for _ in range(5)}
    assert len(lines) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["seal"]
