"""How many connections one user may have and begin."""

import pytest

from gateway.egress.limits import ConnectionLimits, LimitedError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_open_connections_are_bounded_for_each_user_apart() -> None:
    limits = ConnectionLimits(2, 100, Clock())
    with limits.place("alice"), limits.place("alice"):
        with pytest.raises(LimitedError), limits.place("alice"):
            raise AssertionError
        with limits.place("bob"):
            """He notices nothing."""
    with limits.place("alice"):
        """What has ended counts no more."""


def test_new_ones_come_at_a_rate_and_ten_seconds_worth_at_once() -> None:
    clock = Clock()
    limits = ConnectionLimits(1000, 2, clock)

    def begin() -> int:
        begun = 0
        try:
            while True:
                with limits.place("alice"):
                    begun += 1
        except LimitedError:
            return begun

    assert begin() == 20
    clock.now += 1
    assert begin() == 2


def test_a_flood_of_refusals_is_worth_one_record_in_a_while() -> None:
    clock = Clock()
    limits = ConnectionLimits(1, 1, clock)
    counts = []
    for moment in (0, 1, 2, 14, 15, 16):
        clock.now = 100.0 + moment
        with limits.place("alice"):
            with pytest.raises(LimitedError) as refused, limits.place("alice"):
                raise AssertionError
            counts.append(refused.value.counted)
    assert counts == [1, 0, 0, 0, 4, 0]
