"""One gateway leads; when it ends or loses its connection, another does, and it stops what it did for all."""

import asyncio

import pytest

from gateway.background.leadership import Leadership
from gateway.errors import StoreError


class Lock:
    """A lock that several have in common; `holder` is who has it."""

    holder: "Lock | None" = None
    is_away = False

    def take(self, *, wait: bool) -> bool:
        if Lock.is_away:
            raise StoreError("store.unusable", "the server is away")
        if Lock.holder is None:
            Lock.holder = self
        return Lock.holder is self

    def is_held(self) -> bool:
        return Lock.holder is self

    def release(self) -> None:
        if Lock.holder is self:
            Lock.holder = None


class Duty:
    """What a leader does, and whether it does it now."""

    def __init__(self) -> None:
        self.begun, self.goes_on = 0, False

    async def run(self) -> None:
        self.begun, self.goes_on = self.begun + 1, True
        try:
            await asyncio.Event().wait()
        finally:
            self.goes_on = False


@pytest.fixture(autouse=True)
def fresh_lock() -> None:
    Lock.holder, Lock.is_away = None, False


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a state of others, polled with a deadline
            await asyncio.sleep(0.001)


def test_one_of_two_leads_and_the_other_takes_over() -> None:
    """At the end of the first one's process, here of its task."""

    async def scene() -> None:
        duties = [Duty(), Duty()]
        several = [Leadership(Lock(), look_seconds=0.001) for _ in duties]
        tasks = [asyncio.create_task(one.lead(duty.run)) for one, duty in zip(several, duties, strict=True)]
        await until(lambda: any(one.leads for one in several))
        first = next(number for number, one in enumerate(several) if one.leads)
        await until(lambda: duties[first].goes_on)
        assert not several[1 - first].leads
        tasks[first].cancel()
        await until(lambda: duties[1 - first].goes_on)
        assert not duties[first].goes_on
        tasks[1 - first].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scene())


def test_a_leader_whose_lock_is_lost_stops_and_may_lead_again() -> None:
    """While the database is away nobody leads; nothing ends by it."""

    async def scene() -> None:
        duty = Duty()
        leadership = Leadership(Lock(), look_seconds=0.001)
        task = asyncio.create_task(leadership.lead(duty.run))
        await until(lambda: duty.goes_on)
        Lock.is_away, Lock.holder = True, None
        await until(lambda: not duty.goes_on)
        assert not leadership.leads
        Lock.is_away = False
        await until(lambda: duty.goes_on)
        assert duty.begun == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())


def test_an_error_of_the_work_is_the_callers() -> None:
    """Who begins it again; meanwhile another may lead."""

    async def fail() -> None:
        raise ValueError("duty")

    async def scene() -> None:
        with pytest.raises(ValueError, match="duty"):
            await Leadership(Lock(), look_seconds=0.001).lead(fail)
        assert Lock.holder is None

    asyncio.run(scene())


def test_a_gateway_alone_always_leads() -> None:
    leadership, done = Leadership(None), []

    async def work() -> None:
        done.append(leadership.leads)

    asyncio.run(leadership.lead(work))
    assert done == [True]
