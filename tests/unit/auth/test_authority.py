"""The gateway's own keys."""

import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.auth.authority import ensure_key, load_public_line, make_host_key
from gateway.errors import AuthError


def test_a_key_is_made_once_and_loaded_after(tmp_path: Path) -> None:
    """The second call returns the first one's key; only the owner may read it."""
    path = tmp_path / "keys" / "user_ca"
    line = ensure_key(path, "gateway user CA")
    assert line.startswith("ssh-ed25519 ")
    assert line.endswith(" gateway user CA")
    assert ensure_key(path, "gateway user CA") == line
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["user_ca"]


def test_two_starts_at_once_agree_on_one_key(tmp_path: Path) -> None:
    """Whoever is later takes what is there."""
    with ThreadPoolExecutor(8) as pool:
        lines = set(pool.map(lambda _: ensure_key(tmp_path / "k", "c"), range(16)))
    assert len(lines) == 1


def test_openssh_accepts_a_made_host_key(tmp_path: Path) -> None:
    """ssh-keygen derives the same public key from the private one."""
    private, public = make_host_key("alice's environment")
    (tmp_path / "k").write_text(private)
    (tmp_path / "k").chmod(0o600)
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(tmp_path / "k")], capture_output=True, check=True, timeout=60
    )
    assert derived.stdout.decode().split()[:2] == public.split()[:2]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """With the command that repairs it."""
    ensure_key(tmp_path / "k", "c")
    (tmp_path / "k").chmod(mode)
    with pytest.raises(AuthError) as refused:
        load_public_line(tmp_path / "k")
    assert refused.value.code == "authority.exposed"
    assert refused.value.hint.startswith("chmod 600")


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    """A missing and a damaged file are told apart."""
    with pytest.raises(AuthError) as missing:
        load_public_line(tmp_path / "k")
    (tmp_path / "k").write_text("nonsense")
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(AuthError) as damaged:
        load_public_line(tmp_path / "k")
    assert [missing.value.code, damaged.value.code] == ["authority.unreadable", "authority.bad-key"]
