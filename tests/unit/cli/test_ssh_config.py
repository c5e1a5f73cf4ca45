"""A client's own ssh configuration: what is theirs is kept."""

import subprocess
from pathlib import Path

import pytest

from gateway.environments import ssh_config
from gateway.errors import StoreError
from gateway.model import EnvironmentRef

_GATEWAY = ssh_config.Gateway("gw.example.org", 2222, 8888)
_ALICE = EnvironmentRef.parse("alice")
_TEXT = ssh_config.blocks(_GATEWAY, [_ALICE])


def test_write_keeps_what_the_person_wrote(tmp_path: Path) -> None:
    """The Include goes before the first Host, where ssh_config(5) applies it to every host."""
    (tmp_path / "config").write_text("Host mine\n    User me\n")
    ssh_config.write(ssh_config.plan(tmp_path, _TEXT))
    assert (tmp_path / "config").read_text() == "Include devgw.conf\n\nHost mine\n    User me\n"
    assert (tmp_path / "devgw.conf").read_text().endswith(_TEXT)
    assert (tmp_path / "devgw.conf").stat().st_mode & 0o777 == 0o600


def test_second_write_changes_nothing(tmp_path: Path) -> None:
    """Not one Include more."""
    ssh_config.write(ssh_config.plan(tmp_path, _TEXT))
    assert ssh_config.plan(tmp_path, _TEXT) == []


def test_planning_changes_nothing(tmp_path: Path) -> None:
    """What --dry-run relies on."""
    changes = ssh_config.plan(tmp_path / "absent", _TEXT)
    assert [change.path.name for change in changes] == ["devgw.conf", "config"]
    assert not (tmp_path / "absent").exists()


def test_a_linked_config_stays_a_link(tmp_path: Path) -> None:
    """Many people keep ~/.ssh/config in a repository of theirs."""
    theirs = tmp_path / "dotfiles"
    theirs.write_text("Host mine\n")
    (tmp_path / "config").symlink_to(theirs)
    ssh_config.write(ssh_config.plan(tmp_path, _TEXT))
    assert (tmp_path / "config").is_symlink()
    assert theirs.read_text() == "Include devgw.conf\n\nHost mine\n"


def test_a_config_that_is_no_file_is_an_error(tmp_path: Path) -> None:
    """And the message names it."""
    (tmp_path / "config").mkdir()
    with pytest.raises(StoreError, match="config: is a directory"):
        ssh_config.plan(tmp_path, _TEXT)


def test_aliases_of_different_environments_differ() -> None:
    """`alice-proj` may be a user, so the hyphen cannot part user and name."""
    handles = ("alice", "alice+proj", "alice-proj", "alice-proj+main2")
    assert len({ssh_config.alias_of(EnvironmentRef.parse(handle)) for handle in handles}) == len(handles)


def test_each_environment_has_a_local_port_of_its_own() -> None:
    """Else the second environment's notebook would be the first one's."""
    refs = [EnvironmentRef.parse(f"user{number}+{name}") for number in range(500) for name in ("main", "proj")]
    ports = ssh_config.local_ports(refs)
    assert len(set(ports.values())) == len(refs)
    assert all(20_000 <= port < 30_000 for port in ports.values())


def test_a_port_is_the_same_whatever_else_is_asked_for() -> None:
    """A bookmark stays good when an environment is added."""
    alone = ssh_config.local_ports([_ALICE])
    assert ssh_config.local_ports([EnvironmentRef.parse("bob"), _ALICE])[_ALICE] == alone[_ALICE]


def test_forwards_stand_under_an_alias_of_their_own(tmp_path: Path) -> None:
    """As ssh itself reads the file: a second terminal asks for no port, and both names reach the environment."""
    (tmp_path / "config").write_text(_TEXT)
    shown = {}
    for alias in ("devgw-alice", "devgw-alice+notebook"):
        done = subprocess.run(
            ["ssh", "-F", str(tmp_path / "config"), "-G", alias], capture_output=True, text=True, check=True, timeout=60
        )
        shown[alias] = done.stdout.splitlines()
        assert {"hostname gw.example.org", "port 2222", "user alice"} <= set(shown[alias])
    assert not [line for line in shown["devgw-alice"] if line.startswith("localforward")]
    port = ssh_config.local_ports([_ALICE])[_ALICE]
    assert f"localforward {port} [localhost]:8888" in shown["devgw-alice+notebook"]
