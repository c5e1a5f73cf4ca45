"""Disks as project quotas, tried where the kernel has them: in a guest, which is cut off and booted again."""

import re
from pathlib import Path

import pytest

from tests.quota.guest import Guest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_BOOT_SECONDS = 600
_LEAST_CHECKS = {"limits": 30, "after_cut": 2}


def require_passed(said: str, checks: str) -> None:
    """Every check ran and passed; none was left out."""
    [summary] = re.findall(r"=+ (.* in [0-9.]+s.*?) =+\n+guest: " + checks + " ended with 0\n", said)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", summary.partition(" in ")[0])}
    assert set(counts) == {"passed"}
    assert counts["passed"] >= _LEAST_CHECKS[checks]


@pytest.mark.attack("H6", "a project quota of ext4 or XFS: one user fills a disk, and only theirs is full")
def test_project_quotas_hold_on_ext4_and_xfs_and_outlast_a_power_cut(tmp_path: Path) -> None:
    """The checks are in `tests/quota/checks`, and what fails there is in the message."""
    guest = Guest(tmp_path)
    with guest.booted("limits", "kept") as console:
        console.wait_for("limits ended with", _BOOT_SECONDS)
        assert "limits ended with 0" in console.text, console.text
        console.wait_for("take the power away", _BOOT_SECONDS)
    require_passed(console.text, "limits")
    with guest.booted("after_cut") as console:
        console.wait_for("after_cut ended with", _BOOT_SECONDS)
    assert "after_cut ended with 0" in console.text, console.text
    require_passed(console.text, "after_cut")
