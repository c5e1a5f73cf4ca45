"""Versions as NVIDIA and Docker write them."""

import pytest

from gateway.doctor.versions import OLDEST_DRIVERS, TOOLKIT_DRIVERS, is_older, parse_version, text_of


@pytest.mark.parametrize(
    ("text", "version"),
    [("535.86.05", (535, 86, 5)), ("26.1.5+dfsg1", (26, 1, 5)), ("1.17.8-rc.1", (1, 17, 8)), ("v2", (2,)), ("x", None)],
)
def test_the_leading_numbers_are_read(text: str, version: tuple[int, ...] | None) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [
        ((535, 86, 5), (545, 23, 6), True),
        ((570, 26), (570, 124, 6), True),
        ((570, 124, 6), (570, 26), False),
        ((570,), (570, 26), False),
        ((525, 60, 13), (525, 60, 13), False),
        ((580, 65, 6), (525, 60, 13), False),
    ],
)
def test_versions_compare_as_far_as_both_go(version: tuple[int, ...], than: tuple[int, ...], older: bool) -> None:
    assert is_older(version, than) is older


def test_no_toolkit_came_with_a_driver_older_than_its_major_version_runs_on() -> None:
    """The two tables come from two documents of NVIDIA's."""
    assert all(not is_older(own, OLDEST_DRIVERS[cuda[0]]) for cuda, own in TOOLKIT_DRIVERS.items())


def test_versions_are_written_as_nvidia_does() -> None:
    assert [text_of(version) for version in ((525, 60, 13), (580, 65, 6), (1, 17, 8))] == [
        "525.60.13",
        "580.65.06",
        "1.17.8",
    ]
