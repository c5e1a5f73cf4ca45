"""What sites and their programs rely on, as this tree has it: `python -m tests.support.promises` writes it down.

Written anew at each release, by adding: nothing that a release promised may go.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.audit.codes import CODES
from gateway.cli.registry import REGISTRY, Commands
from gateway.config import Settings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "unit" / "promises.json"
_CODE = re.compile(r"[a-z][a-z-]*\.[a-z][a-z_-]*")


def promises() -> dict[str, list[str]]:
    """Return every kind of name that stays."""
    found = {
        "journal codes": set(CODES),
        "error codes": set(_error_codes()),
        "settings": set(_settings(Settings, "")),
        "command line": set(_command_line()),
        "json fields": set(_json_fields()),
    }
    return {kind: sorted(names) for kind, names in found.items()}


def _error_codes() -> Iterator[str]:
    """Yield the first argument of every error that is made."""
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error") and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str) and _CODE.fullmatch(first.value):
                    yield first.value


def _settings(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation, f"{prefix}{name}.")


def _command_line() -> Iterator[str]:
    commands = Commands()
    for name in REGISTRY:
        command = commands[name]
        for inner, one in getattr(command, "commands", {"": command}).items():
            words = f"{name} {inner}".strip()
            yield words
            yield from (f"{words} {flag}" for parameter in one.params for flag in parameter.opts if flag[0] == "-")


def _json_fields() -> Iterator[str]:
    """Yield the keys of every document that a transcript shows, under the command that printed it."""
    for path in sorted((ROOT / "tests" / "cli" / "transcripts").glob("*.txt")):
        command, lines = "", list[str]()
        for line in [*path.read_text().splitlines(), "$ end"]:
            if not line.startswith(("$ ", "2> ", "[exit", "# ", "% ")):
                lines.append(line)
                continue
            if "-o json" in command and lines:
                yield from (f"{_words(command)}: {key}" for key in _keys(lines))
            if line.startswith("$ "):
                command = line
            lines = []


def _keys(lines: list[str]) -> Iterator[str]:
    try:
        yield from _keys_of(json.loads("\n".join(lines)), "")
    except ValueError:
        return


def _keys_of(document: Any, prefix: str) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield f"{prefix}{key}"
            yield from _keys_of(value, f"{prefix}{key}.")
    elif isinstance(document, list):
        for one in document:
            yield from _keys_of(one, prefix)


def _words(command: str) -> str:
    words = [word for word in command.split() if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
    return " ".join(words[1:3]) if words[:1] == ["devgw"] and words[1] in _GROUPS else " ".join(words[1:2])


_GROUPS = frozenset(name for name in REGISTRY if hasattr(Commands()[name], "commands"))

if __name__ == "__main__":
    FILE.write_text(json.dumps(promises(), indent=0, ensure_ascii=False) + "\n")
