"""The digest by which a spec is recognised again."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.digest import digest_of
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, GpuUuid, Limits, Mount

SPEC = EnvironmentSpec(
    EnvironmentRef.parse("alice"), 1, 2, "img", Limits(1, 1.0, 1, 1), (Mount(Path("/a"), "/b"),), {"A": "1", "B": "2"}
)


def test_equal_specs_have_equal_digests() -> None:
    """Whatever order their variables were set in."""
    assert digest_of(SPEC) == digest_of(replace(SPEC, variables={"B": "2", "A": "1"}))


@pytest.mark.parametrize(
    "change",
    [
        {"ref": EnvironmentRef.parse("bob")},
        {"uid": 3},
        {"image": "other"},
        {"limits": Limits(2, 1.0, 1, 1)},
        {"mounts": (Mount(Path("/a"), "/b", read_only=True),)},
        {"variables": {"A": "1", "B": "3"}},
        {"gpus": (GpuUuid("GPU-1"),)},
        {"egress": Egress.INTERNET},
        {"read_only_root": False},
    ],
)
def test_any_difference_shows(change: dict[str, object]) -> None:
    assert digest_of(replace(SPEC, **change)) != digest_of(SPEC)
