"""Warnings of a disk that is nearly full, with disks of the test's own numbers."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.audit.journal import Journal
from gateway.audit.read import stream
from gateway.background.environment_monitor import EnvironmentMonitor, HeldGpus
from gateway.background.watchdog import Watchdog
from gateway.environments import disk_warnings
from gateway.environments.disk_limit import DiskUse
from gateway.environments.disk_warnings import DiskWarnings
from gateway.errors import StoreError
from gateway.gpus.reading import Reading
from gateway.model import EnvironmentRef, EnvironmentState, GpuUuid
from tests.unit.environments.test_lifecycle import ALICE, Site

MIB = 2**20


class Measured:
    """Alice's disk as a test says, and what her terminals and the journal were told."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.use: DiskUse | None = None
        self.said: list[str] = []
        self.restart()

    def restart(self) -> None:
        """Look with a gateway that knows only what stands in the environment."""
        self.warnings = DiskWarnings(
            self.site.root,
            self.site.table,
            self.uses,
            lambda: self.site.engine,
            self.site.environments.files.owner,
            "ops@example",
        )

    def uses(self) -> dict[EnvironmentRef, DiskUse]:
        return {ALICE: self.use} if self.use else {}

    def look(self, percent: int | None, percent_of_inodes: int = 0) -> list[str]:
        """Look once; return the codes of what was found."""
        self.use = None if percent is None else DiskUse(100 * MIB, percent * MIB, 1000, 10 * percent_of_inodes)
        return [found.code for found in self.warnings.walk(lambda _ref, line: self.said.append(line))]

    def file(self, name: str) -> str | None:
        place = self.site.root / "environments/alice/main/config" / name
        return place.read_text() if place.exists() else None


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Measured]:
    site = Site(tmp_path)
    site.create()
    yield Measured(site)
    site.engine.close()


def test_each_crossing_is_said_once_and_again_after_a_fall(alice: Measured) -> None:
    """79, 80, 81, 95, 100, 94, 95, 79, 80: five lines."""
    codes = [alice.look(percent) for percent in (79, 80, 81, 95, 100, 94, 95, 79, 80)]
    warned = ["disk.warned"]
    assert codes == [[], warned, [], warned, [], [], warned, [], warned]
    assert [line.split(" is ")[1][:4] for line in alice.said] == ["80 %", "95 %", "95 %", "80 %"]
    assert "80MiB of 100MiB" in alice.said[0]
    assert "ask ops@example for a larger one" in alice.said[0]


def test_many_small_files_are_warned_of_too(alice: Measured) -> None:
    assert alice.look(10, percent_of_inodes=96) == ["disk.warned"]
    assert "96 % full of small files (960 of 1000 files and directories)" in alice.said[0]


def test_who_logs_in_reads_it_until_there_is_room(alice: Measured) -> None:
    """The note says how full it is now, not how full it was when it was first said."""
    alice.look(50)
    assert alice.file("disk_note") == ""
    alice.look(81)
    alice.look(87)
    assert "your disk is 87 % full" in (alice.file("disk_note") or "")
    report = json.loads(alice.file("disk.json") or "")
    assert (report["percent"], report["level"], report["size_bytes"]) == (87, 80, 100 * MIB)
    alice.look(20)
    assert alice.file("disk_note") == ""
    alice.look(None)
    assert (alice.file("disk_note"), alice.file("disk.json")) == (None, None)


def test_a_gateway_that_starts_anew_says_nothing_twice(alice: Measured) -> None:
    assert alice.look(85) == ["disk.warned"]
    alice.restart()
    assert alice.look(86) == []
    assert alice.look(96) == ["disk.warned"]


def test_it_is_said_once_where_nothing_can_be_written(alice: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full state directory; and the next look tries again to write it down."""

    def refuse(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk_warnings, "swap_in", refuse)
        assert [alice.look(85), alice.look(85)] == [["disk.warned"], []]
    assert alice.look(85) == []
    assert "85 %" in (alice.file("disk_note") or "")


def test_one_that_cannot_be_told_costs_no_other_its_turn(alice: Measured) -> None:
    bob = EnvironmentRef.parse("bob")
    alice.site.environments.stop(ALICE)
    alice.site.create(bob)
    alice.site.table.set_state(ALICE, EnvironmentState.RUNNING)
    full = DiskUse(100, 99, 100, 1)

    def refuse(ref: EnvironmentRef) -> tuple[int, int]:
        if ref == ALICE:
            raise StoreError("store.unusable", "no such owner", "none")
        return alice.site.environments.files.owner(ref)

    uses = {ALICE: full, bob: full}
    site = alice.site
    told = DiskWarnings(site.root, site.table, lambda: uses, lambda: site.engine, refuse, "ops")
    assert [found.ref for found in told.walk(lambda _ref, _line: None)] == [ALICE, bob]


@pytest.mark.emits("disk.warned")
def test_the_monitors_rounds_journal_it_and_hand_the_line_on(alice: Measured, tmp_path: Path) -> None:
    """As `devgw serve` goes them: one record, and one line for whoever has a terminal open."""
    journal = Journal(tmp_path / "journal")
    gpus = HeldGpus(held=set, read=lambda: Reading("none"), wait_seconds=0)
    monitor = EnvironmentMonitor(_never, (lambda: alice.warnings,), gpus, NoQuarantines(), journal, Watchdog())
    alice.use = DiskUse(100 * MIB, 96 * MIB, 1000, 1)
    said = [monitor.go_round(tidies=False) for _ in range(2)]
    journal.close()
    assert [[ref for ref, _line in lines] for lines in said] == [[ALICE], []]
    [record] = [record for record in stream(tmp_path / "journal") if record.code == "disk.warned"]
    assert (record.environment, "96 % full" in record.reason) == ("alice", True)


class NoQuarantines:
    def add_after_xid(self, index: int, xid: int) -> list[GpuUuid]:
        return []


def _never() -> NoReturn:
    raise AssertionError("nothing is reconciled in a round")


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_who_logs_in_with_a_terminal_reads_the_note(shell: str, tmp_path: Path) -> None:
    """By the profile of the image; a command without a terminal gets nothing but its own output."""
    (tmp_path / "disk_note").write_text("devgw: your disk is 96 % full\n")
    profile = Path(__file__).parents[3] / "containers/image/rootfs/etc/profile.d/devgw.sh"
    script = tmp_path / "profile"
    script.write_text(profile.read_text().replace("/etc/devgw/env", str(tmp_path)))
    command = [shell, "-c", f". {script}; echo done"]
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    reading, terminal = os.openpty()
    try:
        subprocess.run(command, env=variables, stdin=terminal, stdout=terminal, stderr=terminal, check=True, timeout=30)
        assert os.read(reading, 4096) == b"devgw: your disk is 96 % full\r\ndone\r\n"
    finally:
        os.close(terminal)
        os.close(reading)
    quiet = subprocess.run(command, env=variables, capture_output=True, check=True, timeout=30)
    assert (quiet.stdout, quiet.stderr) == (b"done\n", b"")
