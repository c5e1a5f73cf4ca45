"""Have plots show Chinese, Japanese and Korean labels: a second font for matplotlib, where the image has one.

It goes behind matplotlib's own, into the settings that matplotlib ships: a user's matplotlibrc stands above them.
Nothing is written where there is no matplotlib, or no such font.
"""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

FONTS = {
    "wqy-microhei.ttc": "WenQuanYi Micro Hei",
    "NotoSansCJK-Regular.ttc": "Noto Sans CJK JP",
    "DroidSansFallbackFull.ttf": "Droid Sans Fallback",
    "DroidSansFallback.ttf": "Droid Sans Fallback",
}
"""The first that is there; Droid's has no Korean syllables."""
_FAMILY = re.compile(r"^(#?font\.family: *).*$", re.MULTILINE)
"""matplotlib reads its own settings without the sign before each line."""


def find_font(directory: Path) -> str:
    """Return the family of the first known font below a directory; empty where there is none."""
    there = {path.name for path in directory.rglob("*.tt[fc]")}
    return next((family for file, family in FONTS.items() if file in there), "")


def add_font(settings: Path, family: str) -> None:
    """Let a font stand in for what matplotlib's own lacks: in the line that is there, for none may come twice."""
    text, count = _FAMILY.subn(rf"\g<1>DejaVu Sans, {family}", settings.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{settings} has no line for font.family")
    settings.write_text(text, encoding="utf-8")


def main(own: Path) -> None:
    """Write the settings below a directory that will lie over Python's prefix."""
    found, family = find_spec("matplotlib"), find_font(Path("/usr/share/fonts"))
    if found is None or found.origin is None or not family:
        return
    shipped = Path(found.origin).parent / "mpl-data" / "matplotlibrc"
    mine = own / shipped.relative_to(sys.prefix)
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
    add_font(mine, family)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
