"""The table of codes, the page that lists them, and the code that emits them say the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.audit.codes import CODES, DECISIONS
from gateway.audit.segments import segments
from policies.requests import Request

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "audit-format.md"


def test_the_page_lists_exactly_the_codes() -> None:
    section = PAGE.read_text().partition("\n## Codes\n")[2]
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE))
    assert rows == CODES


def test_every_request_has_its_codes() -> None:
    assert {kind.action for kind in Request.__args__} == set(DECISIONS)


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_code_is_a_noun_and_a_past_tense_with_one_sentence(code: str) -> None:
    assert re.fullmatch(r"[a-z-]+\.[a-z-]+", code)
    assert CODES[code].endswith(".")
    assert CODES[code][0].isupper()


def test_every_code_that_is_emitted_is_listed() -> None:
    """Looks for events built with a literal code anywhere in the gateway."""
    emitted = {
        (path.name, code)
        for path in (ROOT / "gateway").rglob("*.py")
        for code in re.findall(r'(?:Event|_recorded|_note)\(\s*"([a-z-]+\.[a-z-]+)"', path.read_text())
    }
    assert len(emitted) > 5
    assert {(file, code) for file, code in emitted if code not in CODES} == set()


def test_the_program_in_the_page_checks_a_journal(written: Path, tmp_path: Path) -> None:
    """An auditor can verify a segment with fifteen lines of their own; a flipped byte stops it."""
    program = tmp_path / "check.py"
    program.write_text(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0])
    path = segments(written)[0].path
    command = [sys.executable, str(program), str(path)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    path.write_bytes(path.read_bytes().replace(b'"n":4', b'"n":5'))
    assert b"AssertionError" in subprocess.run(command, check=False, capture_output=True, timeout=60).stderr
