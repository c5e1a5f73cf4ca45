"""Every dependency has a reason in docs/reference/dependencies.md, and nothing there is without use."""

import hashlib
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
    packages, _carried = page.split("## Carried in the tree")
    rows = [line.split("|")[1] for line in packages.splitlines() if line.startswith("| `")]
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


STATIC = ROOT / "gateway/page/web/static"
OURS = {"auditor.css", "page.css", "replay.js", "icon.svg"}


def test_what_others_wrote_for_the_page_is_named_with_its_hash_and_has_its_licence():
    """A changed or unnamed file of somebody else's would run in an administrator's browser."""
    page = (ROOT / "docs/reference/dependencies.md").read_text()
    carried = dict(re.findall(r"^\| `([^`]+)` \|[^|]+\| `([0-9a-f]{64})` \|", page, re.MULTILINE))
    licences = {path.name for path in STATIC.glob("*.LICENSE.txt")}
    foreign = {path.name for path in STATIC.iterdir()} - OURS - licences
    assert {name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name in foreign} == carried
    assert {f"{name.split('.')[0]}.LICENSE.txt" for name in foreign} == licences
