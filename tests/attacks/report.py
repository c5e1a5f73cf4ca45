"""Writes docs/reference/attacks.md from the `attack` marks: `python -m tests.attacks.report`.

Reads the sources and imports none of them, so that no engine and no GPU is needed.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "attacks.md"
AREAS = {
    "A": "Logging in",
    "B": "Names",
    "C": "Forwarding, sockets and egress",
    "D": "Sessions",
    "E": "Transport and denial of service",
    "F": "A policy that changes under live sessions",
    "G": "Guessing and bans",
    "H": "The journal",
    "I": "Out of an environment",
    "J": "The page",
}
NOT_APPLICABLE = {
    "A91": ("`restrict`, `expiry-time`, `permitlisten`, `from` of an authorized_keys line",
            "such a line is refused as a whole (A8): what a user may do stands in the policy"),
    "D90": ("a forced command, passed by through a subsystem",
            "there are no forced commands: such a key line (A8) or certificate (A6) is refused"),
}  # fmt: skip
_HEAD = """# Attacks that are tried
Written by `python -m tests.attacks.report` from the `attack` marks of the tests; do not edit it by
hand.
Each row is one attack and the tests that try it. `make test` runs them all.
"""


@dataclass(frozen=True)
class Attack:
    """One marked test."""

    row: str
    text: str
    test: str


def attacks() -> Iterator[Attack]:
    """Find every marked test."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for row, text in _marks(node):
                    yield Attack(row, text, f"{path.relative_to(ROOT)}::{node.name}")


def _marks(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, str]]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.attack":
            row, text = (ast.literal_eval(argument) for argument in decorator.args)
            yield row, text


def page() -> str:
    """Return the whole page."""
    rows = sorted({*map(_row, attacks()), *_absent()}, key=lambda row: (_place(row[0]), row[1:]))
    parts = [_HEAD]
    for area, of_area in groupby(rows, key=lambda row: row[0][0]):
        lines = [f"| {' | '.join(row)} |\n" for row in of_area]
        parts.append(f"\n## {area}. {AREAS[area]}\n| Row | What is tried | Test |\n|---|---|---|\n{''.join(lines)}")
    return "".join(parts)


def _row(attack: Attack) -> tuple[str, str, str]:
    return attack.row, attack.text, f"`{attack.test}`"


def _absent() -> Iterator[tuple[str, str, str]]:
    for row, (text, reason) in NOT_APPLICABLE.items():
        yield row, text, f"does not apply: {reason}"


def _place(row: str) -> tuple[str, int]:
    found = re.fullmatch(r"([A-J])(\d+)", row)
    assert found, f"{row} is no row: a letter from A to J and a number"
    return found[1], int(found[2])


if __name__ == "__main__":
    PAGE.write_text(page())
