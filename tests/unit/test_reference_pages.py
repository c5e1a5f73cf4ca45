"""The reference pages and the code say the same: commands and flags, settings, error codes."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gateway.errors
from gateway.cli.config_template import default_of, sections, top_level_keys
from gateway.cli.registry import REGISTRY, Commands

_ROOT = Path(__file__).parents[2]
_REFERENCE = _ROOT / "docs" / "reference"
_COMMON_FLAGS = frozenset({"--output", "-o", "--quiet", "-q", "--yes", "-y"})
_CODE = re.compile(r"[a-z][a-z-]*\.[a-z][a-z_-]*")
_ERRORS = {
    name: kind
    for name, kind in inspect.getmembers(gateway.errors, inspect.isclass)
    if issubclass(kind, gateway.errors.DevgwError)
}


def _commands() -> Iterator[tuple[str, Any]]:
    commands = Commands()
    for name in (name for name, entry in REGISTRY.items() if not entry.alias_of):
        command = commands[name]
        yield from ((f"{name} {inner}", one) for inner, one in getattr(command, "commands", {"": None}).items() if one)
        if not hasattr(command, "commands"):
            yield name, command


def _section(page: str, heading: str) -> str:
    _, found, rest = page.partition(f"\n### {heading}\n")
    assert found, f"no section {heading}"
    return re.split(r"\n##+ ", rest)[0]


@pytest.mark.parametrize(("name", "command"), list(_commands()), ids=[name for name, _ in _commands()])
def test_command_is_documented_with_every_flag(name: str, command: Any) -> None:
    """Each command has a section, and each flag of its own stands in it."""
    section = _section((_REFERENCE / "cli.md").read_text(), f"`devgw {name}`")
    for parameter in command.params:
        for flag in set(parameter.opts) - _COMMON_FLAGS:
            if flag.startswith("-"):
                assert f"`{flag}" in section, f"{flag} of devgw {name}"


def test_page_documents_no_command_that_is_gone() -> None:
    """The other way round."""
    page = (_REFERENCE / "cli.md").read_text()
    assert set(re.findall(r"^### `devgw (.+)`$", page, re.MULTILINE)) == {name for name, _ in _commands()}


def test_every_setting_is_documented_with_its_default() -> None:
    """One row each, with the default as it stands in the template of devgw.toml."""
    page = (_REFERENCE / "configuration.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_.]+|datasets\.NAME\.path)` \|", page, re.MULTILINE))
    settings = {f"{section}.{key}" for section, kind in sections().items() for key in kind.model_fields}
    assert documented == settings | set(top_level_keys()) | {"datasets.NAME.path"}
    for section, kind in sections().items():
        for key, field in kind.model_fields.items():
            assert f"| `{section}.{key}` | `{default_of(field)}` |" in page


def test_every_error_code_is_documented_and_every_documented_code_exists() -> None:
    """Codes are collected from the code base, exit codes from the class that carries them."""
    page = (_REFERENCE / "errors.md").read_text()
    documented = dict(re.findall(r"^\| `([a-z._-]+)` \| (\d+) \|", page, re.MULTILINE))
    raised = {code: kind for path in sorted((_ROOT / "gateway").rglob("*.py")) for code, kind in _codes_in(path)}
    assert len(raised) > 50
    assert set(documented) == set(raised)
    exits = {code: str(int(_ERRORS[kind].exit_code)) for code, kind in raised.items()}
    assert documented == exits


def test_every_exit_code_is_documented() -> None:
    """The numbers a script may rely on."""
    page = (_REFERENCE / "errors.md").read_text()
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == set(gateway.errors.Exit)


def _codes_in(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (code, error class) of each error made in a module; a name is looked up among the module's assignments."""
    tree = ast.parse(path.read_text())
    named = dict(_constants(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ERRORS and node.args:
            code = _text(node.args[0]) or named.get(ast.unparse(node.args[0]))
            if code is not None and _CODE.fullmatch(code):
                yield code, node.func.id


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _pairs(target, node.value)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, str]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for name, part in zip(target.elts, value.elts, strict=False):
            yield from _pairs(name, part)
    elif isinstance(target, ast.Name) and (text := _text(value)):
        yield target.id, text


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
