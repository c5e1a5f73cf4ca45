"""Who is talked to at all."""

import pytest

from gateway.auth.throttle import Limits, Throttle
from gateway.config import SshSettings
from gateway.ssh.admission import Admission, disconnect_packet


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
