"""Lifting a ban: journaled under the administrator's name with what it was for, before it is done."""

from concurrent.futures import Future

import pytest

from gateway.audit.event import Event
from gateway.auth.throttle import Limits, Throttle
from gateway.errors import JournalError, NotFoundError, UsageError
from gateway.model import Actor
from gateway.operations.bans import BanOperations
from gateway.operations.recorded import Recorded


class Recorder:
    """A journal in a list, on a disk that may be full."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.is_full = False

    def submit(self, event: Event) -> "Future[None]":
        done: Future[None] = Future()
        if self.is_full:
            done.set_exception(JournalError("journal.unwritable", "no space left on device", "make room"))
        else:
            self.events.append(event)
            done.set_result(None)
        return done


@pytest.fixture
def throttle() -> Throttle:
    throttle = Throttle(lambda: 1000.0, Limits(failures_per_user=2, failures_per_address=3))
    for user in ("alice", "alice", "bob", "bob"):
        throttle.failed("192.0.2.7", user)
    return throttle


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def bans(throttle: Throttle, recorder: Recorder) -> BanOperations:
    return BanOperations(throttle, Recorded(recorder, Actor("admin", "root")))


def test_an_address_is_lifted_with_its_users(bans: BanOperations, recorder: Recorder, throttle: Throttle) -> None:
    """One record for each ban."""
    assert {ban.user for ban in bans.lift("192.0.2.7", reason="her laptop")} == {None, "alice"}
    noted = [(event.code, event.actor.name, event.detail["user"], event.reason) for event in recorder.events]
    assert sorted(noted, key=str) == [
        ("source.unbanned", "root", "alice", "her laptop"),
        ("source.unbanned", "root", None, "her laptop"),
    ]
    assert "proved no key" in str(recorder.events[0].detail["banned_because"])
    assert throttle.bans() == []


def test_one_user_is_lifted_alone(bans: BanOperations, throttle: Throttle) -> None:
    """The address stays banned."""
    bans.lift("192.0.2.7", "alice")
    assert [ban.user for ban in throttle.bans()] == [None]


def test_what_is_not_banned_or_no_address_is_refused(bans: BanOperations) -> None:
    """With the command that lists those there are."""
    with pytest.raises(NotFoundError, match="is not banned"):
        bans.lift("192.0.2.7", "bob")
    with pytest.raises(UsageError, match="is no IP address"):
        bans.lift("gateway.example.org")


def test_what_cannot_be_journaled_is_not_lifted(bans: BanOperations, recorder: Recorder, throttle: Throttle) -> None:
    """As every act."""
    recorder.is_full = True
    with pytest.raises(JournalError):
        bans.lift("192.0.2.7")
    assert len(throttle.bans()) == 2
