"""Limits of a daemon that cannot raise them."""

import socket
from pathlib import Path

import pytest

from gateway.engines.docker.ceilings import _hard_limits, _may_raise, ceilings_behind, lowered

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max stack size            8388608              unlimited            bytes
Max open files            1024                 20000                files
Max locked memory         8388608              8388608              bytes
"""


@pytest.mark.parametrize(
    ("wanted", "ceiling", "given"),
    [(-1, None, -1), (-1, 100, 100), (50, 100, 50), (200, 100, 100), (200, None, 200), (-1, -1, -1)],
)
def test_a_wish_is_lowered_to_the_ceiling(wanted: int, ceiling: int | None, given: int) -> None:
    assert lowered(wanted, "memlock", {} if ceiling is None else {"memlock": ceiling}) == given


def test_hard_limits_are_read_and_unlimited_ones_left_out() -> None:
    assert _hard_limits(LIMITS) == {"memlock": 8388608, "nofile": 20000}


@pytest.mark.parametrize(
    ("capabilities", "users", "may"),
    [
        ("000001ffffffffff", "         0          0 4294967295\n", True),
        ("000001fffeffffff", "         0          0 4294967295\n", False),
        # without root: all capabilities, in a user namespace of its own
        ("000001ffffffffff", "         0      61234          1\n         1 1000000000      65536\n", False),
    ],
)
def test_only_cap_sys_resource_raises_and_not_that_of_a_user_namespace(
    capabilities: str, users: str, may: bool
) -> None:
    assert _may_raise(f"Name:\tdockerd\nCapEff:\t{capabilities}\n", users) is may


def test_the_listener_of_a_unix_socket_is_asked(tmp_path: Path) -> None:
    """Here it is this very process, whose limits the kernel shows in /proc."""
    own = Path("/proc/self")
    may_raise = _may_raise((own / "status").read_text(), (own / "uid_map").read_text())
    expected = {} if may_raise else _hard_limits((own / "limits").read_text())
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert ceilings_behind(f"unix://{path}") == expected


@pytest.mark.parametrize("url", ["tcp://host:2376", "ssh://host", "unix:///nowhere/none.sock"])
def test_a_daemon_elsewhere_has_no_known_ceiling(url: str) -> None:
    assert ceilings_behind(url) == {}
