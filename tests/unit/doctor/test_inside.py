"""What the runner's doctor and nvidia-smi say inside, read as findings. A user's environment writes what is read."""

import json

import pytest

from gateway.doctor.finding import Level, Unasked
from gateway.doctor.inside import Answer, judge_inside, judge_visible
from gateway.model import GpuUuid

GPU, OTHER, MIG = (GpuUuid(f"{kind}-1111") for kind in ("GPU-a", "GPU-b", "MIG-c"))


def report(*checks: dict[str, str], version: int = 1) -> Answer:
    return Answer(0, json.dumps({"version": version, "ok": True, "checks": checks}))


def check(state: str, message: str = "m", fix: str = "") -> dict[str, str]:
    return {"name": "driver", "state": state, "message": message, "fix": fix}


@pytest.mark.parametrize(("state", "level"), [("ok", Level.OK), ("warning", Level.WARNING), ("failed", Level.FAILURE)])
def test_a_check_of_the_runners_is_a_finding(state: str, level: Level) -> None:
    (found,) = judge_inside(report(check(state, "driver 570", "update it")), "alice")
    assert (found.check, found.level, found.message, found.fix) == ("inside.driver", level, "driver 570", "update it")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Unasked("alice does not answer"), "alice does not answer"),
        (Answer(127, ""), "no devgw-run"),
        (Answer(1, "Segmentation fault"), "Segmentation fault"),
        (Answer(0, "[]"), "'[]'"),
        (Answer(0, ""), "said 'nothing'"),
        (report(check("ok"), version=2), "version"),
        (report(check("excellent")), "excellent"),
        (report({"name": "driver"}), "driver"),
        (Answer(0, json.dumps({"version": 1, "checks": [{**check("ok"), "message": 7}]})), "7"),
        (Answer(0, json.dumps({"version": 1, "checks": 3})), "3"),
    ],
)
def test_what_is_no_report_is_unknown_and_never_ok(answer: Answer | Unasked, words: str) -> None:
    (found,) = judge_inside(answer, "alice")
    assert (found.check, found.level) == ("inside", Level.UNKNOWN)
    assert words in found.message
    assert found.fix


def test_what_an_environment_says_is_one_line_of_bounded_length() -> None:
    """It can neither flood nor draw on an administrator's terminal."""
    (found,) = judge_inside(report(check("warning", "a\nb" + "x" * 10_000, "fix\n\nit")), "alice")
    assert (len(found.message), found.fix) == (300, "fix it")


def listing(*uuids: str) -> Answer:
    return Answer(0, "".join(f"GPU 0: NVIDIA H200 (UUID: {uuid})\n" for uuid in uuids))


@pytest.mark.parametrize(
    ("answer", "leased", "level", "words"),
    [
        (listing(GPU), [GPU], Level.OK, "exactly the 1"),
        (listing(GPU, OTHER), [GPU], Level.FAILURE, f"sees {OTHER}"),
        (listing(), [GPU], Level.FAILURE, f"does not see {GPU}"),
        (listing(OTHER), [GPU], Level.FAILURE, f"sees {OTHER}"),
        # a slice: the line of its GPU comes along
        (listing(GPU, MIG), [MIG], Level.OK, "exactly the 1"),
        (listing(GPU, MIG), [GPU], Level.FAILURE, f"sees {MIG}"),
        (Answer(255, "Failed to initialize NVML: Unknown Error"), [GPU], Level.FAILURE, "lost its GPU"),
        (Answer(127, ""), [GPU], Level.UNKNOWN, "not injected"),
        (Unasked("stopped"), [GPU], Level.UNKNOWN, "stopped"),
    ],
)
def test_an_environment_sees_exactly_what_it_holds(
    answer: Answer | Unasked, leased: list[GpuUuid], level: Level, words: str
) -> None:
    found = judge_visible(answer, leased, "alice")
    assert found.level is level
    assert words in found.message
