"""The shape of the runner's source: files of a readable size, and no circle of imports."""

import ast
from pathlib import Path

import devgw_runner

SOURCE = Path(devgw_runner.__file__).parent
MOST_LINES = 400


def modules() -> dict[str, Path]:
    names = {}
    for path in SOURCE.rglob("*.py"):
        parts = ("devgw_runner", *path.relative_to(SOURCE).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(path: Path, known: dict[str, Path]) -> set[str]:
    """What a module names at its top, under TYPE_CHECKING too; imports inside functions are put off on purpose."""
    found = set()
    for outer in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = ast.walk(outer) if isinstance(outer, ast.If) else [outer]
        for node in inner:
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    return found & known.keys()


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Return what is left after everything that imports nothing of what is left was taken out."""
    left = {name: set(imported) for name, imported in graph.items()}
    while free := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in free:
            del left[name]
    imported = set().union(*left.values()) if left else set()
    return sorted(left.keys() & imported)


def test_no_modules_import_each_other_in_a_circle():
    """Not under TYPE_CHECKING either: it hides a circle, and ends none."""
    known = modules()
    graph = {name: imports_of(path, known) - {name} for name, path in known.items() if name != "devgw_runner"}
    assert len(graph) > 80
    assert find_circle(graph) == []


def test_a_circle_is_found():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_files_are_of_a_size_that_can_be_read():
    long = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}
