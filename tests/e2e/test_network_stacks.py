"""Egress of a sandbox with the real programs, and with both modes in which hosts have /dev/net/tun. Needs root."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.engines.packet_filter import host_addresses, ipv4_rules
from gateway.model import Egress
from tests.attacks.outside import CLOSED, LISTED, NEIGHBOUR, PORT, PUBLIC, outside
from tests.support.host_resources import next_uid

TRIAL = Path(__file__).parents[1] / "support" / "stack_trial.py"
ROOT = Path(__file__).parents[2]
EVERYWHERE = [f"{address}:{PORT}" for address in (PUBLIC, NEIGHBOUR, *CLOSED)]


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[None]:
    with outside():
        yield


def reached(program: str, gateway: str, mode: str, egress: str, directory: Path, places: list[str]) -> set[str]:
    """Return which places a sandbox reaches through a network stack."""
    path = shutil.which(program)
    assert path is not None, f"tests/setup/install brings {program}"
    command = [sys.executable, str(TRIAL), gateway, path, egress, mode, str(next_uid()), str(directory), *places]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "--", *command],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.attack("C25", "egress through each network stack, with the device's mode of each host, as root and not")
@pytest.mark.parametrize(("gateway", "mode"), [("root", "600"), ("root", "666"), ("user", "666")])
@pytest.mark.parametrize("program", ["slirp4netns", "pasta"])
def test_public_addresses_are_reached_and_no_others(program: str, gateway: str, mode: str, tmp_path: Path) -> None:
    """0600 is the kernel's own mode, 0666 that of systemd, so of every usual distribution.

    A gateway that is no root has the right to close a sandbox's network in the user namespace that holds it.
    """
    with socket.create_server(("0.0.0.0", 0), backlog=64) as listener:  # noqa: S104 - the attack is on such a service
        own = [f"{address}:{listener.getsockname()[1]}" for address in host_addresses()]
        assert len(own) >= 2
        answered = reached(program, gateway, mode, "internet", tmp_path, [*EVERYWHERE, *own])
    assert answered == {f"{PUBLIC}:{PORT}"}


@pytest.mark.parametrize(("program", "gateway", "mode"), [("pasta", "root", "600"), ("slirp4netns", "user", "666")])
def test_a_list_opens_what_it_names(program: str, gateway: str, mode: str, tmp_path: Path) -> None:
    """The port beside it, its neighbour and the rest of the world stay closed."""
    answered = reached(program, gateway, mode, f"{LISTED}:{PORT}, {NEIGHBOUR}:{PORT + 1}", tmp_path, EVERYWHERE)
    assert answered == {f"{LISTED}:{PORT}"}


def test_the_host_is_never_outside(tmp_path: Path) -> None:
    """Not even where a list names its network: a rule for each of its addresses holds that."""
    with socket.create_server(("0.0.0.0", 0), backlog=64) as listener:  # noqa: S104 - the attack is on such a service
        own = [f"{address}:{listener.getsockname()[1]}" for address in host_addresses()]
        answered = reached("pasta", "user", "666", "198.51.100.0/24, 10.0.0.0/8, 172.0.0.0/8", tmp_path, own)
    assert answered == set()


def test_what_internet_does_not_hold_is_named() -> None:
    """Metadata at a public address too; a packet to it would leave the test."""
    rules = ipv4_rules(Egress.INTERNET.rule)
    assert {"-d 168.63.129.16/32 -j DROP", "-d 169.254.0.0/16 -j DROP", "-d 100.64.0.0/10 -j DROP"} <= set(rules)
    assert rules[-1] == "-j RETURN"
