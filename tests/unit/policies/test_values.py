"""The small values of a policy: ports, durations, sizes, hours, networks, egress, places of keys."""

import re
import tomllib
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import quantities as of_settings
from policies.egress import parse_egress, parse_target
from policies.hours import parse_hours
from policies.load import PolicyError, parse_policy
from policies.ports import PortMap, Ports
from policies.quantities import parse_duration, parse_size, show_duration, show_size
from policies.source import locate

ranges = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))), max_size=5)


def members(ports: Ports) -> set[int]:
    return {port for port in range(80) if port in ports}


@given(ranges, ranges)
def test_ports_behave_as_sets(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    left, right = Ports.of(one), Ports.of(other)
    assert members(left | right) == members(left) | members(right)
    assert members(left - right) == members(left) - members(right)
    assert bool(left) == bool(members(left))


@given(st.lists(ranges, max_size=4))
def test_the_first_owner_of_a_port_is_found(owned: list[list[tuple[int, int]]]) -> None:
    """Bisection gives what looking through all of them in order would give."""
    several = [(Ports.of(one), place) for place, one in enumerate(owned)]
    found = PortMap(several)
    for port in range(80):
        assert found.owner(port) == next((place for ports, place in several if port in ports), None)


@given(st.integers(1, 10**7))
def test_what_is_shown_can_be_read_again(number: int) -> None:
    assert parse_duration(show_duration(number)) == number
    assert parse_size(show_size(number * 1024)) == number * 1024


@pytest.mark.parametrize("text", ["", "8", "8 h", "1.5h", "-1h", "8H", "h", 8, None, True])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "16", "16G", "1.5.5GiB", "-1GiB", 16])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


HOURS = [
    # ordinary days, ends excluded
    ("mon-fri 08:00-20:00", "2026-05-04T08:00", True),
    ("mon-fri 08:00-20:00", "2026-05-04T07:59", False),
    ("mon-fri 08:00-20:00", "2026-05-08T19:59", True),
    ("mon-fri 08:00-20:00", "2026-05-08T20:00", False),
    ("mon-fri 08:00-20:00", "2026-05-09T12:00", False),
    ("wed 00:00-24:00", "2026-05-06T23:59", True),
    # around the end of the week
    ("sat-mon 08:00-20:00", "2026-05-10T12:00", True),
    ("sat-mon 08:00-20:00", "2026-05-12T12:00", False),
    # past midnight: the window belongs to the day it began
    ("fri 22:00-06:00", "2026-05-08T23:00", True),
    ("fri 22:00-06:00", "2026-05-09T05:59", True),
    ("fri 22:00-06:00", "2026-05-08T05:00", False),
    ("fri 22:00-06:00", "2026-05-09T22:30", False),
    ("sun 22:00-06:00", "2026-05-11T01:00", True),
]


@pytest.mark.parametrize(("text", "local", "inside"), HOURS)
def test_weekly_hours(text: str, local: str, inside: bool) -> None:
    assert parse_hours(text).covers(datetime.fromisoformat(local)) is inside
    assert str(parse_hours(text)) == text


def test_hours_follow_summer_time() -> None:
    """08:00 in Berlin is 07:00 UTC in winter and 06:00 UTC in summer."""
    hours, berlin = parse_hours("mon-sun 08:00-09:00"), ZoneInfo("Europe/Berlin")
    for moment in ("2026-01-15T07:30+00:00", "2026-07-15T06:30+00:00"):
        assert hours.covers(datetime.fromisoformat(moment).astimezone(berlin))


@pytest.mark.parametrize(
    "text", ["mon 8-9", "mon-xyz 08:00-09:00", "mon 08:60-09:00", "mon 25:00-26:00", "mon 08:00-08:00"]
)
def test_what_is_no_weekly_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"weekly hours|no span"):
        parse_hours(text)


EGRESS = [
    ("203.0.113.0/24", "203.0.113.7:443", True),
    ("203.0.113.0/24:443", "203.0.113.7", False),
    ("203.0.113.0/24:400-500", "203.0.113.7:443", True),
    ("203.0.113.7", "203.0.113.0/24", False),
    ("[2001:db8::/32]:443", "[2001:db8::1]:443", True),
    ("2001:db8::/32", "203.0.113.7", False),
]


@pytest.mark.parametrize(("listed", "wanted", "covered"), EGRESS)
def test_an_egress_target_covers(listed: str, wanted: str, covered: bool) -> None:
    assert parse_target(listed).covers(parse_target(wanted)) is covered
    assert parse_target(str(parse_target(listed))) == parse_target(listed)


@pytest.mark.parametrize(
    "text",
    ["::ffff:10.0.0.1", "127.0.0.1", "169.254.169.254:80", "::1", "fe80::/10", "fd00:ec2::254", "0.0.0.0", "224.0.0.1",  # noqa: S104  # an address to refuse
     "0.0.0.0/1", "fd00::/8", "10.0.0.1/8", "example.org", "10.0.0.1:0"],
)  # fmt: skip
def test_special_addresses_and_names_are_no_egress_targets(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_egress([text])


AWKWARD = '''version = 1   # [not.a.table]
"quoted key" = "a # b [c]"
text = """
[fake]
x = 1
"""
list = [
  1, # ]
  [2],
]
dotted.key.here = 'x = "1"'

[a . b]
c = { d = 1, e = [ 1,
2] }

[[array]]
x = 1
[array.sub]
y = 2
[[array]]
x = 3
[[array.inner]]
z = 1
'''


def test_every_key_is_found_in_an_awkward_file() -> None:
    assert tomllib.loads(AWKWARD)["array"][1]["inner"] == [{"z": 1}]
    expected = {
        "version": 1, "quoted key": 2, "text": 3, "list": 7, "dotted.key.here": 11, "a.b": 13, "a.b.c": 14,
        "array": 17, "array.0": 17, "array.0.x": 18, "array.0.sub": 19, "array.0.sub.y": 20, "array.1": 21,
        "array.1.x": 22, "array.1.inner": 23, "array.1.inner.0": 23, "array.1.inner.0.z": 24,
    }  # fmt: skip
    assert dict(locate(AWKWARD, "x.toml").lines) == expected


def test_an_unknown_key_has_the_line_of_the_table_around_it() -> None:
    source = locate(AWKWARD, "/etc/devgw/x.toml")
    assert (source.place("a.b.nothing.deep"), source.place("nothing")) == ("x.toml:13", "x.toml")


@pytest.mark.parametrize(("text", "seconds"), [("1h30m", 5400), ("90m", 5400), ("1w2d", 777_600), ("1d12h", 129_600)])
def test_a_duration_means_the_same_in_settings_and_policies(text: str, seconds: int) -> None:
    """One grammar: what one of them takes the other takes."""
    assert parse_duration(text) == of_settings.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["1h 30m", "h", "", "-1h", "1.5h", "\uff11h", "1h30"])
def test_what_is_no_duration_is_none_in_either(text: str) -> None:
    for parse in (parse_duration, of_settings.parse_duration):
        with pytest.raises(ValueError, match="not a duration"):
            parse(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1.5GiB", 1_610_612_736), ("500MB", 500_000_000), ("16 GiB", 17_179_869_184)]
)
def test_a_size_means_the_same_in_settings_and_policies(text: str, size: int) -> None:
    assert parse_size(text) == of_settings.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('shared = ["x"]', "write a table such as"),
        ('shared = {X = "ro"}', "'X' is no name"),
        ('shared = {"../etc" = "ro"}', "is no name"),
        ('shared = {x = "wr"}', "write 'ro' to read"),
        ("shared = {x = true}", "write 'ro' to read"),
    ],
)
def test_what_is_no_shared_volume_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(words)) as refused:
        parse_policy(f"version = 1\n[roles.m]\n{text}\n", "policy.toml")
    assert "policy.toml:3" in str(refused.value)
