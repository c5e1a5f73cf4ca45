"""docs/reference/metrics.md is made from the declarations."""

import re
from pathlib import Path

from gateway.metrics.families import FAMILIES, reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
_BASE_UNITS = ("_seconds", "_bytes", "_ratio", "_celsius", "_watts", "_info", "_timestamp_seconds")


def test_the_page_is_what_the_code_declares() -> None:
    """Out of date? Put the output of `python -c 'from gateway.metrics.families import *; print(reference())'` there."""
    assert reference() in PAGE.read_text()


def test_names_follow_prometheus_conventions() -> None:
    """A prefix, base units, no `total` in a gauge, no unit in between."""
    for family in FAMILIES:
        assert re.fullmatch(r"devgw_[a-z0-9_]+", family.name)
        assert not family.name.endswith("_total")
        assert not re.search(r"_(milliseconds|minutes|hours|percent|mib|gib|kilobytes)", family.name)
        assert family.help.endswith(".")
        assert len({one.name for one in FAMILIES}) == len(FAMILIES)
        if re.search(r"seconds|bytes|ratio|celsius|watts", family.name):
            assert family.name.endswith(_BASE_UNITS)
