"""Descriptors: all that the system gives, and a share of them for each user."""

import resource
import subprocess
import sys

import pytest

from gateway.ssh.descriptors import RESERVED, may_keep


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """In a process of its own, since it lasts."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    program = (
        "import resource; from gateway.ssh.descriptors import raise_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}))\n"
        "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    wanted, soft, _ = map(int, said.stdout.split())
    assert wanted == soft
    assert soft == hard or (hard == resource.RLIM_INFINITY and soft == 1 << 20)


@pytest.mark.parametrize(
    ("descriptor", "held", "may"),
    [
        (100, 4000, True),  # half of all are free
        (2047, 4000, True),
        (2048, 511, True),  # fewer are: who has little may
        (2048, 512, False),
        (4095 - RESERVED, 0, True),
        (4096 - RESERVED, 0, False),  # the reserve
    ],
)
def test_a_user_may_keep_a_descriptor(descriptor: int, held: int, may: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4096."""
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (4096, 4096))
    assert may_keep(descriptor, held) is may
