"""The map is the house: docs/explanation/architecture.md names every room and every file that a newcomer asks for."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/explanation/architecture.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def _layers() -> list[set[str]]:
    """Return the rooms of the gateway, the highest layer first, as import-linter holds them."""
    contract = next(one for one in CONTRACTS if one.get("containers") == ["gateway"])
    return [set(re.split(r" \| ", layer)) for layer in contract["layers"] if layer != "__main__"]


def test_the_table_of_layers_has_every_room_on_its_layer() -> None:
    """What `make lint` holds is what a reader sees."""
    shown: dict[int, set[str]] = {}
    for rank, words in re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE):
        shown.setdefault(int(rank), set()).update(re.findall(r"`([a-z_]+)`", words))
    layers = _layers()
    assert len(shown) == len(layers) > 10
    for rank, rooms in enumerate(layers, 1):
        assert rooms <= shown[rank], f"layer {rank}"


@pytest.mark.parametrize(
    ("room", "question"),
    [
        ("operations", "Where is what an administrator may do?"),
        ("background", "Where is what runs by itself?"),
        ("process", "What are the processes?"),
    ],
)
def test_the_answer_to_a_newcomers_question_names_every_file_of_the_room(room: str, question: str) -> None:
    """A file that nobody finds from the map is a file that is written again."""
    answer = re.split(r"^(?:\*\*|## )", PAGE.split(f"**{question}**")[1], maxsplit=1, flags=re.MULTILINE)[0]
    named = set(re.findall(r"`(?:[a-z]+/)?([a-z_]+)(?:\.py)?`", answer))
    files = {path.stem for path in (ROOT / "gateway" / room).glob("*.py")} - {"__init__"}
    assert len(files) > 5
    assert files <= named


def test_every_file_on_the_walks_is_there() -> None:
    """A walk through code that has moved leads nowhere."""
    walks = PAGE.split("## Walk 1")[1]
    steps = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py|/))`", walks))
    roots = [ROOT, ROOT / "gateway", ROOT / "containers/runner/src/devgw_runner"]
    assert len(steps) > 15
    assert [step for step in steps if not any((root / step).exists() for root in roots)] == []


def test_whom_nobody_may_name_is_forbidden_to_every_room_below_it() -> None:
    """The composition root is known to the commands alone; a new room must stand in that list too."""
    contract = next(one for one in CONTRACTS if one.get("forbidden_modules") == ["gateway.app"])
    above = {"cli", "app"}
    assert {f"gateway.{room}" for layer in _layers() for room in layer - above} == set(contract["source_modules"])
