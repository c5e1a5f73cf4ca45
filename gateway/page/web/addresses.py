"""Addresses of this page with what was asked for in them."""

from urllib.parse import urlencode


def address(path: str, **asked_for: str) -> str:
    """Return a list's address to which the number of a page can be added; what is empty is left out."""
    return f"{path}?{urlencode({name: value for name, value in asked_for.items() if value} | {'page': ''})}"
