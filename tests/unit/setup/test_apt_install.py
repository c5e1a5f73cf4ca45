"""Two checkouts that set a bare machine up at once."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "setup/apt_install"

# Says what it was asked, holds its lock like the real one, and fails as apt-get does while somebody else has it.
_APT = """#!/bin/sh
[ "$1" = update ] || [ -x "$DEVGW_POLICY_RC_D" ] || echo "unblocked" >>"$DEVGW_SEEN"
if [ -e "$DEVGW_BUSY" ] || ! mkdir "$DEVGW_HELD" 2>/dev/null; then
  rm -f "$DEVGW_BUSY"
  echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)"
  exit 100
fi
sleep 0.2
echo "$@" >>"$DEVGW_SEEN"
rmdir "$DEVGW_HELD"
case "$*" in *nonesuch*) echo "E: Unable to locate package nonesuch"; exit 100 ;; esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text(_APT)
    (programs / "apt-get").chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "DEVGW_APT_LOCK": str(tmp_path / "lock"),
        "DEVGW_POLICY_RC_D": str(tmp_path / "policy-rc.d"),
        "DEVGW_SEEN": str(tmp_path / "seen"),
        "DEVGW_HELD": str(tmp_path / "held"),
        "DEVGW_BUSY": str(tmp_path / "busy"),
    }


def _install(environment: dict[str, str], *packages: str) -> "subprocess.CompletedProcess[str]":
    command = [str(_SCRIPT), *packages]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _installed(environment: dict[str, str]) -> list[str]:
    lines = Path(environment["DEVGW_SEEN"]).read_text().splitlines()
    return [line.split()[-1] for line in lines if "install" in line]


def test_two_at_once_both_install(environment: dict[str, str]) -> None:
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda package: _install(environment, package), ["socat", "rsync"]))
    assert [(process.returncode, process.stderr) for process in ended] == [(0, "")] * 2
    assert sorted(_installed(environment)) == ["rsync", "socat"]
    assert "unblocked" not in Path(environment["DEVGW_SEEN"]).read_text()
    assert not Path(environment["DEVGW_POLICY_RC_D"]).exists()


def test_an_update_of_the_system_is_waited_for(environment: dict[str, str]) -> None:
    Path(environment["DEVGW_BUSY"]).touch()
    process = _install(environment, "socat")
    assert (process.returncode, process.stdout, process.stderr) == (0, "setup: installing socat\n", "")
    assert _installed(environment) == ["socat"]


def test_a_package_that_is_none_is_said_at_once(environment: dict[str, str]) -> None:
    process = _install(environment, "nonesuch")
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "E: Unable to locate package nonesuch",
        "setup: error: apt-get could not install nonesuch",
        "setup: hint: see the lines above",
    ]
    assert not Path(environment["DEVGW_POLICY_RC_D"]).exists()
