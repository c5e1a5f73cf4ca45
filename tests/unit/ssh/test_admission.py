"""Who is talked to at all."""

import asyncio
from functools import partial

import pytest

from gateway.auth.throttle import Limits, Throttle
from gateway.config import SshSettings
from gateway.ssh import startup_queue
from gateway.ssh.admission import Admission, disconnect_packet
from gateway.ssh.startup_queue import StartupQueue, Waiting


def admission(chance: float = 0.0, **settings: object) -> Admission:
    throttle = Throttle(lambda: 0.0, Limits(failures_per_address=1, ban_seconds=60))
    return Admission(SshSettings.model_validate(settings), throttle, lambda: chance)


@pytest.mark.parametrize(
    ("startups", "chance", "admitted"),
    [
        (9, 0.0, True),  # below begin all are taken
        (10, 0.29, False),  # at begin three of ten are dropped
        (10, 0.31, True),
        (55, 0.64, False),  # half way it is 65 of a hundred
        (55, 0.66, True),
        (100, 0.99, False),  # full
    ],
)
def test_max_startups_drops_early_as_sshd_does(startups: int, chance: float, admitted: bool) -> None:
    """10:30:100 is sshd's default."""
    judge = admission(chance)
    for number in range(startups):
        judge.enter(f"192.0.2.{number}")
    assert (judge.why_not("198.51.100.1") is None) is admitted


def test_one_source_cannot_take_all_places() -> None:
    """Its own limit is told to it; another source is let in."""
    judge = admission(per_source_max_startups=3)
    places = [judge.enter("192.0.2.1") for _ in range(3)]
    assert "have not logged in" in str(judge.why_not("192.0.2.1"))
    assert judge.why_not("192.0.2.2") is None
    places[0].logged_in()
    assert judge.why_not("192.0.2.1") is None


def test_connections_of_one_source_are_limited_logged_in_or_not() -> None:
    """And freed when they close, once, in whatever order things end."""
    judge = admission(per_source_max_connections=2)
    places = [judge.enter("192.0.2.1") for _ in range(2)]
    for place in places:
        place.logged_in()
        place.logged_in()
    assert judge.why_not("192.0.2.1") == "too many connections from 192.0.2.1"
    places[0].left()
    places[0].left()
    assert judge.why_not("192.0.2.1") is None


def test_a_banned_address_is_told_for_how_long() -> None:
    """The ban says so."""
    judge = admission()
    judge._throttle.failed("192.0.2.1")
    assert judge.why_not("192.0.2.1") == "too many failed logins from 192.0.2.1; try again in 60 s"


def test_a_draining_gateway_takes_nobody() -> None:
    """So that the next process gets them."""
    judge = admission()
    judge.draining = True
    assert "shutting down" in str(judge.why_not("192.0.2.1"))


@pytest.mark.parametrize("size", range(40))
def test_the_disconnect_packet_is_well_formed(size: int) -> None:
    """RFC 4253 §6: length a multiple of eight, at least four bytes of padding."""
    packet = disconnect_packet("x" * size)
    length, padding = int.from_bytes(packet[:4], "big"), packet[4]
    assert length == len(packet) - 4
    assert len(packet) % 8 == 0
    assert 4 <= padding < 16
    assert packet[5] == 1
    assert packet[14 : 14 + size] == b"x" * size


def test_a_stranger_waits_behind_logins_of_its_own_address_only() -> None:
    """Where none is under way there is nothing to wait for, and a limit of connections does not pass."""
    judge = admission(per_source_max_startups=1, per_source_max_connections=2, max_startups="1:100:1")
    assert not judge.may_wait("192.0.2.9")
    judge.enter("192.0.2.1")
    assert "have not logged in" in str(judge.why_not("192.0.2.1"))
    assert judge.may_wait("192.0.2.1")
    judge.enter("192.0.2.1")
    assert not judge.may_wait("192.0.2.1")
    assert "busy" in str(judge.why_not("192.0.2.2"))
    assert not judge.may_wait("192.0.2.2")


def test_max_startups_holds_for_strangers_only() -> None:
    """From where a key has been proved only the limits of that address hold."""
    judge = admission(max_startups="1:100:1")
    judge.enter("192.0.2.1")
    assert "busy" in str(judge.why_not("198.51.100.1"))
    judge._throttle.succeeded("198.51.100.1", "alice")
    assert judge.why_not("198.51.100.1") is None


@pytest.mark.parametrize("is_proved", [True, False])
def test_who_waits_goes_on_after_a_proof_and_hears_why_not_otherwise(*, is_proved: bool) -> None:
    """First come, first served; each is answered once."""

    async def wait() -> list[str]:
        judge, heard = admission(per_source_max_startups=1), []
        place = judge.enter("192.0.2.1")
        for name in ("first", "second"):
            waiting = Waiting("192.0.2.1", f"{name}: no", heard.append, partial(go_on, judge, heard, name))
            judge.queue.enter(waiting)
        if is_proved:
            judge._throttle.succeeded("192.0.2.1", "alice")
        place.left()
        place.left()
        return heard

    def go_on(judge: Admission, heard: list[str], name: str) -> None:
        heard.append(name)
        judge.enter("192.0.2.1")

    assert asyncio.run(wait()) == (["first"] if is_proved else ["first: no", "second: no"])


def test_a_wait_ends_by_itself_and_with_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason it waited for, or that the gateway shuts down."""
    monkeypatch.setattr(startup_queue, "WAIT_SECONDS", 0.01)

    async def wait() -> list[str]:
        judge, heard = admission(per_source_max_startups=1), []
        judge.queue.enter(Waiting("192.0.2.1", "full", heard.append, lambda: None))
        await asyncio.sleep(0.05)  # longer than it waits
        monkeypatch.setattr(startup_queue, "WAIT_SECONDS", 60)
        judge.queue.enter(Waiting("192.0.2.1", "full", heard.append, lambda: None))
        judge.drain()
        return heard

    assert asyncio.run(wait()) == ["full", "this gateway is shutting down; connect again"]


def test_only_so_many_wait() -> None:
    """Of strangers fewer than there are places, so that users who proved a key before find one."""

    async def fill() -> tuple[int, bool]:
        queue, count = StartupQueue(), 0
        while queue.has_room(f"192.0.2.{count % 200}", is_known=False):
            queue.enter(Waiting(f"192.0.2.{count % 200}", "full", lambda _reason: None, lambda: None))
            count += 1
        return count, queue.has_room("192.0.2.1", is_known=True)

    assert asyncio.run(fill()) == (startup_queue.WAITING_UNKNOWN_MAX, True)
