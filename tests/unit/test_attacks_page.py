"""The page of attacks says what the tests try, and nothing else."""

from tests.attacks.report import PAGE, SECTIONS, page, rows


def test_the_page_is_what_the_tests_say() -> None:
    """`python -m tests.attacks.report` writes it."""
    assert PAGE.read_text() == page(rows())


def test_each_row_has_one_text_and_a_section() -> None:
    """Two tests of one row say the same of it; a letter has a title."""
    texts: dict[tuple[str, int], set[str]] = {}
    for row in rows():
        texts.setdefault((row.letter, row.number), set()).add(row.text)
        assert row.letter in SECTIONS
    assert [row for row, said in texts.items() if len(said) > 1] == []
