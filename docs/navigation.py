"""The order of the site's pages: the folders as a newcomer needs them, in each its pages by title. A hook of MkDocs.

Nothing is listed by hand, so a page that is written is a page that is found.
"""

import re
from pathlib import Path
from typing import Any

FOLDERS = {
    "tutorial": "Tutorial",
    "howto": "How to",
    "reference": "Reference",
    "explanation": "Explanation",
    "adr": "Decisions",
    "monitoring": "Monitoring",
}
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Give MkDocs the navigation. Raises: ValueError for a folder with pages that has no place in it."""
    config["nav"] = navigation(Path(config["docs_dir"]))
    return config


def navigation(docs: Path) -> list[dict[str, Any]]:
    """Return the site's sections from the tree of its pages."""
    unknown = {page.relative_to(docs).parts[0] for page in docs.glob("*/**/*.md")} - set(FOLDERS)
    if unknown:
        raise ValueError(f"docs/navigation.py gives no place to {', '.join(sorted(unknown))}")
    sections = {title: _pages(docs, docs / folder) for folder, title in FOLDERS.items()}
    return [{"devgw": "index.md"}, *({title: pages} for title, pages in sections.items())]


def _pages(docs: Path, folder: Path) -> list[str]:
    pages = folder.rglob("*.md")
    return [page.relative_to(docs).as_posix() for page in sorted(pages, key=_place)]


def _place(page: Path) -> tuple[bool, str]:
    """The folder's own page first; decisions by number, all else by title."""
    if page.parent.name == "adr":
        return (page.stem != "README", page.stem)
    title = _TITLE.search(page.read_text(encoding="utf-8"))
    return (page.stem != "README", (title[1] if title else page.stem).casefold())
