"""Guessing a notebook password gets slower, in turn, and never without bound."""

import asyncio

import pytest
from devgw_environment.throttle import (
    FORGET_AFTER_SECONDS,
    FREE_FAILURES,
    LONGEST_DELAY_SECONDS,
    MOST_WAITING,
    GuessThrottle,
    TooManyGuesses,
)


class FakeTime:
    """A clock that moves only when somebody sleeps on it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


async def guess_wrongly(throttle: GuessThrottle) -> None:
    """One wrong guess."""
    async with throttle.guess():
        throttle.note(correct=False)


def test_delay_grows_after_the_first_slips_and_stays_bounded() -> None:
    """Two typing errors cost nothing; then each failure doubles the wait up to the longest."""
    time = FakeTime()
    throttle = GuessThrottle(time.clock, time.sleep)

    async def guess_often() -> None:
        for _ in range(12):
            await guess_wrongly(throttle)

    asyncio.run(guess_often())
    assert time.slept[:3] == [0.5, 1.0, 2.0]
    assert len(time.slept) == 12 - FREE_FAILURES
    assert max(time.slept) == LONGEST_DELAY_SECONDS


def test_parallel_guesses_wait_as_long_as_guesses_in_turn() -> None:
    """Sending guesses at once does not dodge the delay: each waits behind the one before."""
    time = FakeTime()
    throttle = GuessThrottle(time.clock, time.sleep)

    async def guess_at_once() -> None:
        await asyncio.gather(*(guess_wrongly(throttle) for _ in range(6)))

    asyncio.run(guess_at_once())
    assert time.slept == [0.5, 1.0, 2.0, 4.0]


def test_guesses_beyond_the_queue_are_turned_away() -> None:
    """The queue is bounded, so guessing does not make the server grow."""
    time = FakeTime()
    throttle = GuessThrottle(time.clock, time.sleep)
    for _ in range(FREE_FAILURES):
        throttle.note(correct=False)

    async def fill() -> list[object]:
        return await asyncio.gather(*(guess_wrongly(throttle) for _ in range(MOST_WAITING + 3)), return_exceptions=True)

    outcomes = asyncio.run(fill())
    assert sum(isinstance(outcome, TooManyGuesses) for outcome in outcomes) == 3
    assert throttle.waiting == 0


@pytest.mark.parametrize("forgiven_by", ["success", "time"])
def test_failures_are_forgiven(forgiven_by: str) -> None:
    """A right password, or enough time, ends the delay."""
    time = FakeTime()
    throttle = GuessThrottle(time.clock, time.sleep)
    for _ in range(5):
        throttle.note(correct=False)
    assert throttle.delay_seconds() > 0
    if forgiven_by == "success":
        throttle.note(correct=True)
    else:
        time.now += FORGET_AFTER_SECONDS + 1
    assert throttle.delay_seconds() == 0
