"""The pages as a site: built strictly, every page in its navigation, nothing fetched from another host."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docs.navigation import navigation

ROOT = Path(__file__).resolve().parents[2]
_FETCHING = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
_SECONDS = 120


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Run MkDocs as `make docs` does, into a folder of the test's own."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=_SECONDS, check=False)


class Fetched(HTMLParser):
    """Collects what a browser fetches by itself when it opens a page; what it follows on a click is not among it."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        place = dict(attrs).get(_FETCHING.get(tag, ""))
        if place:
            self.places.append(place)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the built site."""
    made = tmp_path_factory.mktemp("site")
    built = build(ROOT, made)
    assert built.returncode == 0, built.stdout + built.stderr
    return made


def test_every_page_is_built_and_stands_in_the_navigation(site: Path) -> None:
    """Whoever writes a page lists it nowhere."""
    pages = {page.relative_to(ROOT / "docs").with_suffix("") for page in (ROOT / "docs").rglob("*.md")}
    home = (site / "index.html").read_text()
    for page in pages:
        html = "index.html" if page.name == "README" else f"{page.name}.html"
        assert (site / page.parent / html).is_file()
        assert f'href="{(page.parent / html).as_posix()}"' in home or str(page) == "index"


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    """A closed site can serve it, and nobody learns who reads it."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 70
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text())
        assert parser.places
        assert [place for place in parser.places if re.match(r"([a-z]+:)?//", place)] == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?([a-z]+:)?//", sheet.read_text()), sheet.name


@pytest.mark.parametrize(
    "broken", ["[away](no-such-page.md)", "[a part](../reference/errors.md#no-such-part)", "[a picture](../no.png)"]
)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path, broken: str) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "docs/howto/new.md").write_text(f"# New\nSee {broken}.\n")
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode == 1
    assert "howto/new.md" in built.stdout + built.stderr


def test_a_folder_without_a_place_in_the_navigation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "essays").mkdir()
    (tmp_path / "essays" / "one.md").write_text("# One\n")
    with pytest.raises(ValueError, match="essays"):
        navigation(tmp_path)
