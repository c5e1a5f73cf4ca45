"""Joins the rooms: `composition` names the implementations, `serve` runs them behind the one port."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.app.composition import App

__all__ = ["App"]


def __getattr__(name: str) -> Any:
    """Load the composition root when it is asked for: the page's process begins its other half before."""
    if name != "App":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gateway.app.composition import App

    return App
