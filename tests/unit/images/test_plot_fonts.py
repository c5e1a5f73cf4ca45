"""The second font of matplotlib: which one is found, and where it stands among the settings."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from gateway.images.build import find_image_folder


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(find_image_folder() / "build" / "plot_fonts.py"))


@pytest.mark.parametrize(
    ("files", "family"),
    [
        (["truetype/droid/DroidSansFallbackFull.ttf", "opentype/noto/NotoSansCJK-Regular.ttc"], "Noto Sans CJK JP"),
        (["truetype/droid/DroidSansFallbackFull.ttf", "truetype/wqy/wqy-microhei.ttc"], "WenQuanYi Micro Hei"),
        (["opentype/noto/NotoSansCJK-Regular.ttc"], "Noto Sans CJK JP"),
        (["truetype/dejavu/DejaVuSans.ttf"], ""),
        ([], ""),
    ],
)
def test_the_first_known_font_is_taken(script: dict[str, Any], tmp_path: Path, files: list[str], family: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert script["find_font"](tmp_path) == family


def test_it_stands_behind_matplotlibs_own(script: dict[str, Any], tmp_path: Path) -> None:
    """In the one line for it: matplotlib complains of a second one."""
    settings = tmp_path / "matplotlibrc"
    settings.write_text("## font.family says which\n#font.family:  sans-serif\n#font.style:   normal\n")
    script["add_font"](settings, "Droid Sans Fallback")
    assert settings.read_text() == (
        "## font.family says which\n#font.family:  DejaVu Sans, Droid Sans Fallback\n#font.style:   normal\n"
    )


def test_settings_of_another_form_end_the_build(script: dict[str, Any], tmp_path: Path) -> None:
    settings = tmp_path / "matplotlibrc"
    settings.write_text("#font.style: normal\n")
    with pytest.raises(SystemExit, match="no line for"):
        script["add_font"](settings, "Droid Sans Fallback")
