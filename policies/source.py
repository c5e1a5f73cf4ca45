"""Where each key of a TOML file stands, since the standard parser does not say. Reads well-formed files only."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from tomllib import TOMLDecodeError

_KEY = re.compile(
    r"""\s*(?:(?P<bare>[A-Za-z0-9_-]+)|"(?P<basic>[^"\n]*)"|'(?P<literal>[^'\n]*)')\s*(?P<next>[.=\]]?)"""
)
_PLACE = re.compile(r" \(at line (\d+), column \d+\)$|\(at end of document\)$")
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]|\n', re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Source:
    """A policy file's name and the line of each dotted key in it; array entries count from 0: `grants.0.users`."""

    name: str = "policy"
    lines: Mapping[str, int] = field(default_factory=dict)

    def line(self, key: str) -> int:
        """Return the line of a key, or of the nearest table around it; 0 where nothing is known."""
        while key not in self.lines and "." in key:
            key = key.rpartition(".")[0]
        return self.lines.get(key, 0)

    def place(self, key: str) -> str:
        """Return `file:line` for a key; the file without its folder, since refused users read this."""
        line, file = self.line(key), self.name.rpartition("/")[2]
        return f"{file}:{line}" if line else file


def locate(text: str, name: str) -> Source:
    """Scan a file that `tomllib` accepts and note the line of every key outside inline tables."""
    lines: dict[str, int] = {}
    arrays: dict[str, int] = {}
    table = ""
    for number, statement in _statements(text):
        if statement.startswith("[["):
            array = ".".join(_resolve(_key_words(statement[2:]), arrays))
            arrays[array] = arrays.get(array, -1) + 1
            table = f"{array}.{arrays[array]}"
            lines.setdefault(array, number)
        elif statement.startswith("["):
            table = ".".join(_resolve(_key_words(statement[1:]), arrays))
        else:
            words = _key_words(statement)
            lines[".".join(([table] if table else []) + words)] = number
            continue
        lines.setdefault(table, number)
    return Source(name, lines)


def syntax_fault(text: str, error: TOMLDecodeError) -> tuple[int, str]:
    """Return the line and, in one sentence, what is wrong with a text that is not TOML.

    `tomllib` says of a key that is there twice that a value cannot be overwritten, and of a text without quotes that
    it is invalid: the two faults that people make.
    """
    said = str(error)
    match = _PLACE.search(said)
    line = int(match[1]) if match and match[1] else text.count("\n") + 1 if match else 0
    said = _PLACE.sub("", said).strip()
    key = re.match(r"\s*([\w.\"'-]+)\s*=", text.split("\n")[line - 1]) if line else None
    if key and said == "Cannot overwrite a value":
        return line, f"{key[1]} is there twice"
    if key and said == "Invalid value" and match and match[1]:  # at the end it is an array that is not closed
        return line, f"what {key[1]} is set to is no value of TOML; a text stands in quotes"
    if table := re.fullmatch(r"Cannot declare \((.+?),?\) twice", said):
        names = re.findall("'([^']*)'", table[1])
        return line, f"[{'.'.join(names)}] is there twice"
    return line, said[:1].lower() + said[1:]


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each statement's first line with its number; what a value continues on later lines is passed over."""
    number, depth, position, start = 1, 0, 0, 1
    for match in _TOKEN.finditer(text):
        mark = match[0]
        number += mark.count("\n")
        depth += (mark in {"[", "{"}) - (mark in {"]", "}"})
        if mark == "\n" and depth == 0:
            yield from _statement(text[position : match.start()], start)
            position, start = match.end(), number
    yield from _statement(text[position:], start)


def _statement(text: str, number: int) -> Iterator[tuple[int, str]]:
    stripped = text.strip()
    if stripped and not stripped.startswith("#"):
        yield number, stripped


def _key_words(statement: str) -> list[str]:
    words: list[str] = []
    position = 0
    while match := _KEY.match(statement, position):
        words.append(match["bare"] or match["basic"] or match["literal"] or "")
        position = match.end()
        if match["next"] != ".":
            break
    return words


def _resolve(words: list[str], arrays: Mapping[str, int]) -> list[str]:
    """Put the current index behind each array of tables that a header passes through."""
    resolved: list[str] = []
    for place, word in enumerate(words):
        resolved.append(word)
        path = ".".join(resolved)
        if path in arrays and place < len(words) - 1:
            resolved.append(str(arrays[path]))
    return resolved
