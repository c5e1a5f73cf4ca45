"""Docs are read beside code: their lines end at 100 columns. Old words of the house do not come back."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WIDTH = 100
OLD_WORDS = re.compile(
    r"\b(UserConnection|BridgeSession|FarSession|SessionRegistry|Errands?|run_errand|run_inside|Oversight|Roster|Seat|"
    r"liaison|Doorkeeper|Witness|witnesses|Waker|Tenure|Courtesy|unsoundness|bedside|bystander|errand|roster)\b"
)
"""Names that HOUSE renamed; `visit` and `care` are English words and are left to a reader."""


def _prose(page: Path) -> Iterator[tuple[int, str]]:
    is_code = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith(("|", "    ")):
            yield number, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_end_at_100_columns(page: Path) -> None:
    """Tables, code and what cannot be broken, such as a long command or address, aside."""
    unbreakable = re.compile(r"`[^`]*`|\[[^\]]*\]\([^)]*\)|\S{40,}")
    long = [n for n, line in _prose(page) if len(line) > WIDTH and len(unbreakable.sub("", line)) > WIDTH // 2]
    assert long == []


def test_the_words_that_were_replaced_stay_away() -> None:
    """In code, tests and docs alike; this list is the one place where they stand."""
    files = [
        *(ROOT / "gateway").rglob("*.py"),
        *(ROOT / "policies").rglob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
        *PAGES,
    ]
    found = {
        str(path.relative_to(ROOT)): sorted(words)
        for path in files
        if path != Path(__file__) and (words := set(OLD_WORDS.findall(path.read_text())))
    }
    assert found == {}
