"""What every request must be before a view sees it, and where a first URL may lead."""

import pytest

from gateway.page.web.guard import place_on_this_page
from gateway.page.web.levels import includes
from gateway.page.web.rendering import age, size, when


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/", "/"),
        ("/people?search=a&page=2", "/people?search=a&page=2"),
        ("", "/"),
        ("people", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\nb", "/"),
        ("/ä", "/"),
        ("http://evil.example/", "/"),
        ("/" + "x" * 3000, "/"),
    ],
)
def test_a_first_url_leads_on_within_the_page(path: str, place: str) -> None:
    assert place_on_this_page(path) == place


@pytest.mark.parametrize(
    ("held", "asked", "may"),
    [
        ("user", "user", True),
        ("admin", "auditor", True),
        ("auditor", "admin", False),
        ("none", "user", False),
        ("user", "auditor", False),
        ("root", "user", False),
        ("admin", "root", False),
    ],
)
def test_a_page_holds_what_is_on_those_below(held: str, asked: str, may: bool) -> None:
    assert includes(held, asked) is may


def test_moments_and_sizes_are_written_for_people() -> None:
    assert str(when("2026-05-04T12:30:59+02:00")).endswith(">2026-05-04 10:30 UTC</time>")
    assert when(None) == "–"  # noqa: RUF001 - what stands for nothing
    assert age(None) == "never"
    assert age("2020-01-01T00:00:00+00:00").endswith(" d ago")
    assert (size(0), size(1536), size(8 << 30), size(5 << 40)) == ("0 B", "1.5 KiB", "8 GiB", "5 TiB")
