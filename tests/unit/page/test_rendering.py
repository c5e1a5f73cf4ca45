"""How templates read what the desk tells, and what they may put where."""

import re
from importlib import resources

import pytest

from gateway.page.web.rendering import Rendering, moment_text, when

TEMPLATES = {
    file.name: file.read_text()
    for file in resources.files("gateway.page.web").joinpath("templates").iterdir()
    if file.name.endswith(".html")
}


@pytest.mark.parametrize("name", ["keys", "items", "values", "get", "pop", "other"])
def test_what_the_desk_tells_comes_before_a_mappings_own_methods(name: str) -> None:
    template = Rendering([])._environment.from_string("{{ one." + name + " }}")
    assert template.render(one={name: "<told>"}) == "&lt;told&gt;"


def test_a_mapping_without_such_an_item_has_its_methods() -> None:
    template = Rendering([])._environment.from_string(
        "{% for name, value in one.items() %}{{ name }}={{ value }}{% endfor %}"
    )
    assert template.render(one={"a": 1}) == "a=1"


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_no_element_stands_within_an_attribute(name: str) -> None:
    """`when` makes an element, whose quotes end the attribute that it stands in."""
    assert re.findall(r'="[^">]*\|\s*when\b', TEMPLATES[name]) == []


def test_a_moment_is_an_element_or_text() -> None:
    moment = "2026-05-03T12:30:00+02:00"
    assert moment_text(moment) == "2026-05-03 10:30 UTC"
    assert when(moment) == f'<time datetime="{moment}">2026-05-03 10:30 UTC</time>'
