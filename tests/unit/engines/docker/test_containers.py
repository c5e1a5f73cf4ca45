"""What is read from a container that the engine shows."""

from typing import Any

import pytest

from gateway.engines.docker.containers import witness_of
from gateway.model import EnvironmentRef

ALICE = EnvironmentRef.parse("alice")


def inspected(memory: int) -> dict[str, Any]:
    """Return the part of `GET /containers/{id}/json` that is read."""
    state = {"Running": True, "Status": "running", "ExitCode": 0}
    return {"State": state, "Config": {"Labels": {"devgw.uid": "1000"}}, "HostConfig": {"Memory": memory}}


@pytest.mark.parametrize(("memory", "enforced"), [(2**30, True), (0, False)])
def test_limits_that_the_engine_dropped_are_said(memory: int, enforced: bool) -> None:
    """Podman without root on version 1 of cgroups answers as if it had taken them; the container shows 0."""
    caveats = witness_of(ALICE, inspected(memory)).caveats
    assert any("NOT enforced" in caveat for caveat in caveats) is not enforced


@pytest.mark.parametrize(
    ("told", "ran_short", "words"),
    [(True, False, "limit of 2 GiB"), (False, True, "limit of 2 GiB"), (False, False, "")],
)
def test_a_kill_at_the_memory_limit_is_named_by_whoever_saw_it(told: bool, ran_short: bool, words: str) -> None:
    """Docker says so at once, Podman when the container has ended; the kernel tells at any time."""
    container = inspected(2 * 2**30)
    container["State"]["OOMKilled"] = told
    detail = witness_of(ALICE, container, ran_short=ran_short).detail
    assert words in detail
    assert ("out of memory" in detail) is (told or ran_short)


@pytest.mark.parametrize(
    ("ulimits", "is_told"),
    [
        ([{"Name": "stack", "Hard": 1, "Soft": 1}], False),
        ([{"Name": "RLIMIT_STACK", "Hard": 1, "Soft": 1}], False),
        ([{"Name": "RLIMIT_NOFILE", "Hard": 1, "Soft": 1}], True),
        (None, True),
    ],
)
def test_ulimits_that_the_engine_dropped_are_said(ulimits: list[dict[str, Any]] | None, is_told: bool) -> None:
    """Podman without root shows those of its service alone."""
    container = inspected(2**30)
    container["HostConfig"]["Ulimits"] = ulimits
    assert any("drops ulimits" in caveat for caveat in witness_of(ALICE, container).caveats) is is_told
