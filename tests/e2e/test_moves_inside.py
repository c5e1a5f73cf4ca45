"""Files that arrive on a cluster: the other end of rsync runs inside the environment. Here a real sshd is it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.auth.authority import Authority
from gateway.errors import MoveError
from gateway.moves.other_host import OtherHost
from tests.support.ssh_environment import SshEnvironment

ROOT = Path(__file__).parents[2]
MOVE = "0123456789abcdef" * 2


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[SshEnvironment]:
    authority = Authority(tmp_path / "keys")
    made = SshEnvironment("alice", authority.user_ca_line())
    (made.root / "host_key.pub").write_text(made.host_key)
    made.start()
    yield made
    made.remove()


@pytest.fixture
def way(environment: SshEnvironment, tmp_path: Path) -> OtherHost:
    script = tmp_path / "ssh"
    key = Authority(tmp_path / "keys").user_ca_key
    script.write_text(
        "#!/bin/sh\n"
        'command=$(printf "%s" "$*" | sed "s/.* -- --server/--server/")\n'
        f"cd {ROOT} && exec {sys.executable} -m tests.support.receive_inside {environment.root} {key} -- $command\n"
    )
    script.chmod(0o755)
    return OtherHost("root@cluster", (str(script),))


def test_files_arrive_inside_as_the_users_own_twice_and_without_what_went(
    environment: SshEnvironment, way: OtherHost, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "deep").mkdir(parents=True)
    (home / "deep" / "model.pt").write_bytes(bytes(range(256)) * 4096)
    (home / "gone").write_text("soon")
    (home / "link").symlink_to("deep/model.pt")
    way.copy(home, MOVE, "main", "home", may_change=True)
    assert (environment.root / "started").read_text() == "alice True"
    assert (environment.home / "gone").exists()
    (home / "gone").unlink()
    way.copy(home, MOVE, "main", "home", may_change=False)
    found = environment.home / "deep" / "model.pt"
    assert (found.read_bytes(), found.stat().st_uid) == ((home / "deep" / "model.pt").read_bytes(), environment.uid)
    assert (environment.home / "link").readlink() == Path("deep/model.pt")
    assert not (environment.home / "gone").exists()


def test_an_environment_that_ends_meanwhile_is_a_copy_that_failed(environment: SshEnvironment, way: OtherHost) -> None:
    """Nothing is taken for copied; the same command again goes on."""
    environment.stop()
    with pytest.raises(MoveError) as failed:
        way.copy(ROOT / "policies", MOVE, "main", "home", may_change=True)
    assert failed.value.code in {"move.refused", "move.copy-failed", "move.unreachable"}
