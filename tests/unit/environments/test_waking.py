"""Dial-then-wake, the one duty of the gateway's loop and of commands."""

import asyncio
import socket

import pytest

from gateway.environments.waking import blocking, dial_awake, without_loop
from gateway.errors import EngineError, NodeError

STREAM = socket.socketpair()[0]


class Environment:
    """Answers after so many failures; counts how often it was dialled and woken."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures, self.dialled, self.woken = failures, 0, 0
        self.error = error or EngineError("socket.absent", "not there yet")

    def dial(self) -> socket.socket:
        self.dialled += 1
        if self.dialled <= self.failures:
            raise self.error
        return STREAM

    def wake(self) -> None:
        self.woken += 1


@pytest.mark.parametrize("error", [EngineError("socket.refused", "no answer"), ConnectionRefusedError()])
@pytest.mark.parametrize(("failures", "dialled", "woken"), [(0, 1, 0), (1, 2, 1)])
def test_only_one_that_does_not_answer_is_woken(failures: int, dialled: int, woken: int, error: Exception) -> None:
    environment = Environment(failures, error)
    flow = dial_awake(blocking(environment.dial), blocking(environment.wake))
    assert without_loop(flow) is STREAM
    assert (environment.dialled, environment.woken) == (dialled, woken)


def test_it_is_woken_once_and_the_second_failure_is_told() -> None:
    environment = Environment(2)
    with pytest.raises(EngineError, match="not there yet"):
        without_loop(dial_awake(blocking(environment.dial), blocking(environment.wake)))
    assert (environment.dialled, environment.woken) == (2, 1)


def test_a_bug_is_no_reason_to_wake() -> None:
    environment = Environment(1, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        without_loop(dial_awake(blocking(environment.dial), blocking(environment.wake)))
    assert environment.woken == 0


def test_what_waking_says_is_told_also_ctrl_c() -> None:
    """A command that waits in the queue ends at once."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    environment = Environment(1)
    with pytest.raises(KeyboardInterrupt):
        without_loop(dial_awake(blocking(environment.dial), blocking(interrupted)))
    assert environment.dialled == 1


def test_the_same_flow_runs_on_a_loop() -> None:
    environment = Environment(1)

    async def dial() -> socket.socket:
        await asyncio.sleep(0)
        return environment.dial()

    async def wake() -> None:
        await asyncio.sleep(0)
        environment.wake()

    assert asyncio.run(dial_awake(dial, wake)) is STREAM
    assert environment.woken == 1


def test_a_step_that_waits_for_a_loop_is_no_step_of_a_command() -> None:
    environment = Environment(1)

    async def wake() -> None:
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="waits for an event loop"):
        without_loop(dial_awake(blocking(environment.dial), wake))


def test_one_that_may_run_where_nobody_can_see_it_is_not_woken() -> None:
    """A second start would give its home a second writer."""
    environment = Environment(1, NodeError("node.unreachable", "node node1 does not answer"))
    with pytest.raises(NodeError):
        without_loop(dial_awake(blocking(environment.dial), blocking(environment.wake)))
    assert (environment.dialled, environment.woken) == (1, 0)
