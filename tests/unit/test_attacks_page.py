"""The page of attacks says what the marked tests say."""

import re

import pytest

from tests.attacks.report import AREAS, NOT_APPLICABLE, PAGE, attacks, page


def test_the_page_is_what_the_marks_make_of_it() -> None:
    """Out of date? `python -m tests.attacks.report` writes it anew."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("area", AREAS)
def test_every_area_is_attacked(area: str) -> None:
    """None is empty."""
    assert any(attack.row.startswith(area) for attack in attacks())


def test_rows_are_told_apart() -> None:
    """A row is a letter and a number; one that does not apply has no test; no text breaks the table."""
    found = list(attacks())
    assert all(re.fullmatch(r"[A-J][1-9][0-9]?", attack.row) for attack in found)
    assert not {attack.row for attack in found} & set(NOT_APPLICABLE)
    assert not [attack for attack in found if "|" in attack.text or "\n" in attack.text]
