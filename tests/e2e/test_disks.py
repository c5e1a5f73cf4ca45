"""The disk of an environment through the whole gateway: full for its user alone, grown, backed up, renamed, purged."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audit.verify import verify
from gateway.environments.disk_image import may_grow_mounted
from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll

pytestmark = pytest.mark.engine
FILL = "cat /dev/zero >~/fill 2>/tmp/why; cat /tmp/why; df -P ~ | tail -1"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    made = GatewayProcess(tmp_path_factory.mktemp("disks"), engine_variables())
    try:
        made.devgw("init")
        made.create("alice", "--disk", "64MiB")
        made.create("bob", "--disk", "64MiB")
        made.serve()
        yield made
    finally:
        for user in ("alice", "alicia", "bob"):
            made.devgw("delete", user, "--force", "--purge", "--yes", expect=None)
        made.close()
        assert mounts(made.root) == []


def mounts(place: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(place) in line]


def loops(place: Path) -> list[str]:
    listed = subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True, timeout=20).stdout
    return [line for line in listed.splitlines() if str(place) in line]


def disk(gateway: GatewayProcess, user: str) -> dict[str, int]:
    found: dict[str, int] = gateway.devgw_json("disk", user)
    return found


def warned(gateway: GatewayProcess) -> list[dict[str, str]]:
    lines = gateway.devgw("audit", "log", "-o", "json").stdout.splitlines()
    return [found for found in map(json.loads, lines) if found["code"] == "disk.warned"]


def login(gateway: GatewayProcess, user: str) -> str:
    """Return what a terminal shows that opens and closes."""
    return gateway.ssh(user, "-tt", stdin=b"exit\n").stdout.decode()


@pytest.mark.emits("disk.warned")
@pytest.mark.attack("H6", "one user fills a disk of a fixed size: only theirs is full")
def test_a_full_disk_hurts_its_user_alone_who_can_log_in_and_remove(gateway: GatewayProcess) -> None:
    """Bob writes, the journal is whole, and alice's login, removal and next file work."""
    assert b"No space left" in gateway.ssh("alice", FILL).stdout
    assert disk(gateway, "alice")["disk_used_percent"] >= 99
    assert gateway.ssh("bob", "echo hers >~/file && cat ~/file").stdout == b"hers\n"
    assert verify(gateway.root / "state/journal").ok
    assert f"64MiB {disk(gateway, 'alice')['disk_used_percent']}%" in gateway.devgw("list").stdout
    is_warned_and_whole_after_removal(gateway)


def is_warned_and_whole_after_removal(gateway: GatewayProcess) -> None:
    """The journal says it, a terminal that opens reads it, and no more when there is room."""
    poll(lambda: warned(gateway), "the warning", 60)
    assert {line["environment"] for line in warned(gateway)} == {"alice"}
    assert "your disk is" in login(gateway, "alice")
    assert "your disk is" not in login(gateway, "bob")
    gateway.devgw("stop", "alice")
    gateway.devgw("start", "alice")
    assert gateway.ssh("alice", "rm ~/fill && echo hers >~/file && cat ~/file").stdout == b"hers\n"


def has_grown(gateway: GatewayProcess) -> bool:
    """Another run beside this one may just make hosts of namespaces: each takes a copy of every mount for its life."""
    grown = gateway.devgw("disk", "bob", "--size", "128MiB", expect=None)
    held = grown.returncode == 6 and "files of bob are open on this host" in grown.stderr
    assert grown.returncode == 0 or held, grown.stderr
    return grown.returncode == 0


@pytest.mark.emits("environment.resized")
def test_it_grows_and_is_there_after_a_host_that_mounts_nothing(gateway: GatewayProcess) -> None:
    """Grown in use where the kernel lets us; unmounted behind the gateway's back, it is mounted by the next start."""
    if not may_grow_mounted():
        refused = gateway.devgw("disk", "bob", "--size", "128MiB", expect=6)
        assert "CAP_SYS_RESOURCE" in refused.stderr
        gateway.devgw("stop", "bob")
    poll(lambda: has_grown(gateway), "a moment in which nobody else holds the disk", 300)
    assert disk(gateway, "bob")["disk_bytes"] == 128 * 2**20
    refused = gateway.devgw("disk", "bob", "--size", "64MiB", expect=6)
    assert "cannot be made 64MiB" in refused.stderr
    gateway.devgw("stop", "bob")
    gateway.devgw("start", "bob")
    assert gateway.ssh("bob", "cat ~/file").stdout == b"hers\n"


def test_bad_sizes_are_one_line_and_make_nothing(gateway: GatewayProcess) -> None:
    """Each with its exit code; the user is not made known."""
    for size, code, words in (("10", 2, "not a size"), ("1MiB", 2, "too little"), ("900TiB", 6, "do not fit")):
        said = gateway.devgw("create", "carol", "--disk", size, expect=code).stderr
        assert words in said
        assert len([line for line in said.splitlines() if "error" in line]) == 1
    assert not (gateway.root / "state/disks/carol").exists()
    assert "carol" not in gateway.devgw("list").stdout


def test_backup_rename_and_purge_take_the_disk_along(gateway: GatewayProcess) -> None:
    """A backup holds its files, the new name finds them, a purge leaves neither mount nor image."""
    backup = gateway.root / "backup"
    gateway.devgw("backup", str(backup), "--volumes")
    assert (backup / "volumes/alice/main/home/file").read_text() == "hers\n"
    gateway.devgw("stop", "alice")
    gateway.devgw("rename", "alice", "alicia")
    gateway.devgw("start", "alicia")
    assert (gateway.root / "state/volumes/alicia/main/home/file").read_text() == "hers\n"
    gateway.devgw("stop", "bob")
    gateway.devgw("start", "bob")  # a namespace that begins while alicia's disk is mounted
    gateway.devgw("delete", "alicia", "--force", "--purge", "--yes")
    assert loops(gateway.root / "state/disks/alicia") == []
    assert mounts(gateway.root / "state/volumes/alicia") == []
    assert not (gateway.root / "state/disks/alicia").exists()
    assert not (gateway.root / "state/disks/alice").exists()
