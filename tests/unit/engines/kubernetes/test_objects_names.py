"""Names and labels of a cluster: valid for the API whatever users are called, and read back alike."""

import re

import pytest

from gateway.engines.kubernetes.names import claim_name, labels_of, object_name, ref_in
from gateway.model import EnvironmentRef

_LONGEST = f"{'u' * 31}+{'e' * 31}"
HANDLES = ["a", "a-", "a-b", "a+b", "a-b+c", "a+b-c", "a-+b-", _LONGEST]
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


@pytest.mark.parametrize("handle", HANDLES)
def test_names_and_labels_are_what_the_api_takes(handle: str) -> None:
    ref = EnvironmentRef.parse(handle)
    assert _NAME.fullmatch(object_name("lab1", ref))
    assert len(claim_name("lab1", ref, "checkpoints")) <= 253
    for value in labels_of("lab-", ref).values():
        assert _VALUE.fullmatch(value)
        assert len(value) <= 63


def test_names_that_look_alike_stay_apart() -> None:
    made = {object_name(gateway, EnvironmentRef.parse(handle)) for gateway in ("one", "two") for handle in HANDLES}
    assert len(made) == 2 * len(HANDLES)


@pytest.mark.parametrize("handle", HANDLES)
def test_whose_an_object_is_can_be_read_back(handle: str) -> None:
    ref = EnvironmentRef.parse(handle)
    found = {"metadata": {"name": object_name("lab1", ref), "labels": labels_of("lab1", ref)}}
    assert ref_in(found, "lab1") == ref
    assert ref_in(found, "lab2") is None


def test_our_labels_on_another_name_are_not_ours() -> None:
    """Somebody copied them onto a pod of their own."""
    found = {"metadata": {"name": "mine", "labels": labels_of("lab1", EnvironmentRef.parse("alice"))}}
    assert ref_in(found, "lab1") is None
