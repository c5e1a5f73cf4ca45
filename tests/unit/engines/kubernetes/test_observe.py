"""What a record and its pod say of an environment."""

import pytest

from gateway.engines.kubernetes.observe import Ended, observed_of
from tests.unit.engines.kubernetes.made import ALICE, pod_in, record

RUNNING = {"running": {"startedAt": "2026-01-31T12:00:00Z"}}


def test_a_record_alone_is_a_stopped_environment() -> None:
    seen = observed_of(ALICE, record(), None, is_away=False)
    assert (seen.running, seen.exit_code, seen.uid, seen.image) == (False, None, 20001, "devgw/env:cpu")


def test_a_running_pod_says_its_node_and_gpus() -> None:
    seen = observed_of(ALICE, record(), pod_in(RUNNING), is_away=False)
    assert (seen.running, seen.node, seen.gpus) == (True, "n1", ("GPU-0a1b2c3d",))


def test_a_pod_that_nobody_looked_into_does_not_run_yet() -> None:
    """Which GPUs it has is not known, and whether its network is closed."""
    pod = pod_in(RUNNING)
    del pod["metadata"]["annotations"]["devgw.org/gpus"]
    assert not observed_of(ALICE, record(), pod, is_away=False).running


def test_a_pod_on_a_node_that_does_not_answer_is_unknown() -> None:
    seen = observed_of(ALICE, record(), pod_in(RUNNING), is_away=True)
    assert (seen.is_unknown, seen.running, seen.exit_code, seen.node) == (True, False, None, "n1")


@pytest.mark.parametrize("change", ["owner", "digest"])
def test_a_pod_that_was_made_from_something_else_is_not_the_environment(change: str) -> None:
    """Its labels alone are no proof."""
    pod = pod_in(RUNNING)
    if change == "owner":
        pod["metadata"]["ownerReferences"] = [{"kind": "Secret", "uid": "another"}]
    else:
        pod["metadata"]["annotations"]["devgw.org/spec-digest"] = "0" * 64
    seen = observed_of(ALICE, record(), pod, is_away=False)
    assert (seen.running, seen.partial, seen.gpus) == (False, True, ())


@pytest.mark.parametrize(
    ("state", "status", "code", "words"),
    [
        ({"terminated": {"exitCode": 3, "reason": "Error"}}, {"phase": "Failed"}, 3, ""),
        ({"terminated": {"exitCode": 0, "reason": "Completed"}}, {"phase": "Succeeded"}, 0, ""),
        ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, {"phase": "Failed"}, 137, "out of memory"),
        (None, {"phase": "Failed", "reason": "Evicted", "message": "low on resource: memory"}, -1, "Evicted: low on"),
    ],
)
def test_how_a_pod_ended_is_told(state: object, status: dict[str, str], code: int, words: str) -> None:
    seen = observed_of(ALICE, record(), pod_in(state, **status), is_away=False)
    assert (seen.running, seen.exit_code) == (False, code)
    assert words in seen.detail


def test_how_it_ended_is_remembered_when_the_pod_is_gone() -> None:
    seen = observed_of(ALICE, record(ended=Ended(7, "stopped").written()), None, is_away=False)
    assert (seen.exit_code, seen.detail) == (7, "stopped")


def test_a_damaged_note_is_none() -> None:
    assert observed_of(ALICE, record(ended='{"exit_code": "x"}'), None, is_away=False).exit_code is None


def test_why_it_does_not_run_yet_is_told() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    assert "ImagePullBackOff" in observed_of(ALICE, record(), pod_in(waiting), is_away=False).detail
