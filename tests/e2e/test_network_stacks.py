"""Egress of a sandbox with the real programs, and with both modes in which hosts have /dev/net/tun. Needs root."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.outside import CLOSED, PORT, PUBLIC, outside
from tests.support.host_resources import next_uid

TRIAL = Path(__file__).parents[1] / "support" / "stack_trial.py"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[None]:
    with outside():
        yield


@pytest.mark.parametrize("mode", ["600", "666"])
@pytest.mark.parametrize("program", ["slirp4netns", "pasta"])
def test_public_addresses_are_reached_and_no_others(program: str, mode: str, tmp_path: Path) -> None:
    """0600 is the kernel's own mode, 0666 that of systemd, so of every usual distribution."""
    path = shutil.which(program)
    assert path is not None, f"tests/setup/install brings {program}"
    places = [f"{address}:{PORT}" for address in (PUBLIC, *CLOSED[:2])]
    command = [sys.executable, str(TRIAL), path, mode, str(next_uid()), str(tmp_path), *places]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "--", *command],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)["answers"]
    assert answers == {places[0]: "here", **dict.fromkeys(places[1:], "nothing")}
