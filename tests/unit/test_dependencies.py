"""Every dependency has a reason in docs/reference/dependencies.md, and nothing there is without use."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_dependency_has_a_reason_and_no_reason_is_left_over():
    """The page and pyproject.toml name the same packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["postgresql"], *extras["docs"], *extras["dev"]]
    named = {re.split(r"[<>=\[]", requirement)[0].lower() for requirement in asked}
    page = (ROOT / "docs/reference/dependencies.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    documented = {name.lower() for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert documented == named


def test_the_lock_file_pins_every_dependency_with_hashes():
    """What is installed is what was tried."""
    lock = (ROOT / "requirements.lock").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)==\S+ \\$", lock, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["docs"], *extras["dev"]]:
        assert re.split(r"[<>=\[]", requirement)[0].lower() in pinned
