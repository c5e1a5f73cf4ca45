"""Names that sites and programs rely on stay: journal and error codes, settings, commands and flags, JSON fields."""

import json

import pytest

from tests.support.promises import FILE, promises

_PROMISED: dict[str, list[str]] = json.loads(FILE.read_text())


@pytest.mark.parametrize("kind", sorted(_PROMISED))
def test_what_the_last_release_promised_is_there(kind: str) -> None:
    """More may have come; nothing may have gone or changed its name."""
    assert sorted(set(_PROMISED[kind]) - set(promises()[kind])) == []


def test_every_kind_is_held() -> None:
    """An empty list would hold nothing."""
    assert all(len(names) > 50 for names in _PROMISED.values())
    assert set(_PROMISED) == set(promises())
