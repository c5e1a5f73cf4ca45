"""Labels as the second observed: what is written can be read, what is damaged is not believed."""

import pytest

from gateway.engines.docker import labels
from gateway.engines.docker.labels import gpus_in, labels_of, ref_in, uid_in
from gateway.model import EnvironmentRef, EnvironmentSpec, GpuUuid, Limits

SPEC = EnvironmentSpec(
    EnvironmentRef.parse("alice+proj"),
    1001,
    1001,
    "img",
    Limits(1, 1, 1, 1),
    (),
    gpus=(GpuUuid("GPU-1"), GpuUuid("GPU-2")),
)


def test_what_is_written_can_be_read() -> None:
    written = labels_of(SPEC, "one")
    assert ref_in(written, "one") == SPEC.ref
    assert uid_in(written) == 1001
    assert gpus_in(written) == SPEC.gpus


def test_every_label_is_written_even_when_empty() -> None:
    """An absent one would be taken from the image."""
    plain = EnvironmentSpec(SPEC.ref, 1, 1, "img", SPEC.limits, ())
    names = {value for name, value in vars(labels).items() if name.isupper() and not name.startswith("_")}
    assert set(labels_of(plain, "one")) == names
    assert gpus_in(labels_of(plain, "one")) == ()


@pytest.mark.parametrize(
    "damage",
    [
        {"devgw.gateway": "two"},
        {"devgw.user": "../etc"},
        {"devgw.user": "root"},
        {"devgw.user": ""},
        {"devgw.name": "A"},
    ],
)
def test_a_damaged_or_foreign_owner_is_nobody(damage: dict[str, str]) -> None:
    assert ref_in({**labels_of(SPEC, "one"), **damage}, "one") is None


@pytest.mark.parametrize("text", ["", "-1", "1e3", "x", "١"])  # noqa: RUF001 a digit, but not of ours
def test_a_damaged_uid_is_no_users(text: str) -> None:
    assert uid_in({"devgw.uid": text}) == -1
