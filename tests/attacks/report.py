"""Makes docs/reference/attacks.md from the marks of the tests: `python -m tests.attacks.report`.

The marks are read from the source, so that a row cannot be listed without a test, nor a test without its row.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "attacks.md"
SECTIONS = {
    "A": "Logging in",
    "B": "Names from outside",
    "C": "Forwards and networks",
    "D": "Sessions",
    "E": "Transport",
    "F": "Access that changes while it is used",
    "G": "Bans",
    "H": "The journal",
    "I": "Out of an environment",
}
_HEAD = """# Attacks that were tried

Made from the tests by `python -m tests.attacks.report`; a test fails when this page and the tests differ. Each row is
tried in `make test`, by the real client programs, raw sockets or from inside a real environment, on Docker and on
bubblewrap where an engine matters.
"""
_NOT_TRIED = """
## Not tried

- A clock that jumps while sessions are open: `tests/unit/app/test_clock.py` has a fake clock only.
- Host names of 100 kB and ports beyond 65535 in a forward: bounded in `gateway/ssh/forward.py`, no attack of their own.
- NUL and line ends in a command or a user name on the wire: unit tests only.
- Ten thousand channels opened and never read: channels are counted (C13), the number itself is not tried.
"""


@dataclass(frozen=True, order=True, slots=True)
class Row:
    """One attack: the letter and number of its row, what is tried, and the test that tries it."""

    letter: str
    number: int
    text: str
    test: str


def rows(tests: Path = ROOT / "tests") -> list[Row]:
    """Return all marked tests, in the order of their rows."""
    return sorted(row for file in tests.rglob("test_*.py") for row in _rows_of(file))


def _rows_of(file: Path) -> Iterator[Row]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.attack":
                row, text = (ast.literal_eval(argument) for argument in decorator.args)
                test = f"{file.relative_to(ROOT)}::{node.name}"
                yield Row(row[0], int(row[1:]), text, test)


def page(found: list[Row]) -> str:
    """Return the page; tests of one row stand together."""
    parts = [_HEAD]
    for letter, title in SECTIONS.items():
        of_letter = [row for row in found if row.letter == letter]
        if not of_letter:
            continue
        parts.append(f"\n## {letter}. {title}\n\n| row | what is tried | test |\n|---|---|---|\n")
        tests: dict[tuple[int, str], list[str]] = {}
        for row in of_letter:
            tests.setdefault((row.number, row.text), []).append(f"`{row.test}`")
        parts += [f"| {letter}{number} | {text} | {'<br>'.join(tried)} |\n" for (number, text), tried in tests.items()]
    return "".join([*parts, _NOT_TRIED])


if __name__ == "__main__":
    PAGE.write_text(page(rows()), encoding="utf-8")
