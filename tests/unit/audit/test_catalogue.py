"""The catalogue of journal codes is neither more nor less than what happens."""

import ast
from collections.abc import Iterator
from pathlib import Path

from gateway.audit.codes import CODES, DECISIONS, FACTS

ROOT = Path(__file__).parents[3]
_CATALOGUE = ROOT / "gateway" / "audit" / "codes.py"


def test_every_code_has_a_test_that_makes_it_happen() -> None:
    """By the marks `emits`, which are held to their word where the test runs."""
    assert set(CODES) - _marked() == set()


def test_no_test_promises_a_code_that_the_catalogue_does_not_have() -> None:
    assert _marked() - set(CODES) == set()


def test_every_fact_has_an_emitter() -> None:
    """A place in the gateway that names it and is no reader; `<noun>.failed` comes of an act that fails."""
    literals = {text for path in (ROOT / "gateway").rglob("*.py") if path != _CATALOGUE for text in _strings(path)}
    acts = {code.partition(".")[0] for code in literals if code in FACTS}
    silent = {code for code in FACTS if code not in literals and not _is_failure_of(code, acts)}
    assert silent == set()


def test_every_decision_has_a_request() -> None:
    """The gate makes these codes from the request's own name."""
    requests = ast.unparse(ast.parse((ROOT / "policies" / "requests.py").read_text()))
    assert [action for action in DECISIONS if f"'{action}'" not in requests] == []


def _is_failure_of(code: str, acts: set[str]) -> bool:
    noun, _, what = code.partition(".")
    return what == "failed" and noun in acts


def _strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _marked() -> set[str]:
    return {code for path in (ROOT / "tests").rglob("test_*.py") for code in _marks(path)}


def _marks(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.emits":
            yield from (ast.literal_eval(argument) for argument in node.args)
