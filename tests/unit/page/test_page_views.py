"""The reference of views names each of them, with its level and a picture."""

import re
from pathlib import Path

import pytest
from PIL import Image

from gateway.page.web.view import ViewRoute
from gateway.page.web.views import VIEWS

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "reference" / "page-views.md").read_text()
SHOWN = [
    route for view in VIEWS for route in view.routes if route.method == "GET" and (route.nav or "{" not in route.path)
]
PART_OF_ANOTHER = {"/recordings/search"}
"""Its answer is a list of the view before."""


@pytest.mark.parametrize("route", [one for one in SHOWN if one.path not in PART_OF_ANOTHER], ids=lambda one: one.path)
def test_every_view_is_described_with_its_level_and_a_picture(route: ViewRoute) -> None:
    described = re.search(rf"\n`{re.escape(route.path)}`, {route.level}\. .*?!\[[^]]+\]\(([^)]+)\)", PAGE, re.DOTALL)
    assert described is not None
    assert "\n## " not in described[0]
    with Image.open(DOCS / "reference" / described[1]) as picture:
        assert picture.width >= 800
