"""Time alone changes what people may do: the clock says when, and only then."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.background.expiry import Expiry
from policies.load import parse_policy
from policies.requests import Certificate, Subject

POLICY = parse_policy(
    """
version = 1
default_roles = ["always"]
[roles.always]
sessions = ["shell"]
[roles.day]
sessions = ["shell"]
hours = ["mon-sun 08:00-18:00"]
[[grants]]
users = ["alice"]
roles = ["day"]
[[grants]]
users = ["carol"]
roles = ["always"]
until = 2026-05-04T12:00:07Z
""",
    "policy.toml",
)
ALICE, BOB, CAROL = Subject("alice"), Subject("bob"), Subject("carol")


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-05-04T{text}+00:00")


@pytest.mark.parametrize(
    ("subject", "before", "after", "struck"),
    [
        (ALICE, "17:59:59.9", "18:00:00.4", True),
        (ALICE, "17:59:58", "17:59:59.9", False),
        (ALICE, "07:59:59", "08:00:00", True),
        (BOB, "17:59:59.9", "18:00:00.4", False),
        (CAROL, "12:00:06.9", "12:00:07.4", True),
        (CAROL, "12:00:06.4", "12:00:06.9", False),
    ],
)
def test_clock_strikes_at_the_edges_of_what_is_held(subject: Subject, before: str, after: str, struck: bool) -> None:
    """Whether the user was there at the look before, or came in between."""
    for known in ([subject], []):
        clock = Expiry()
        assert not clock.has_struck(POLICY, known, at(before))
        assert clock.has_struck(POLICY, [subject], at(after)) is struck
        assert not clock.has_struck(POLICY, [subject], at(after))


def test_clock_strikes_when_a_certificate_expires() -> None:
    """Once, and for who holds it."""
    end = datetime(2026, 5, 4, 12, tzinfo=UTC)
    certificate = Certificate("SHA256:x", "id", 1, ("bob",), end - timedelta(hours=1), end)
    clock, bob = Expiry(), Subject("bob", certificate=certificate)
    looks = [clock.has_struck(POLICY, [bob], end + timedelta(seconds=step)) for step in (-1, -0.5, 0, 0.5)]
    assert looks == [False, False, True, False]
