"""What one run of the command line carries from the program to the command: settings and the gateway's parts."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, cast

import typer

if TYPE_CHECKING:
    from gateway.app.composition import App
    from gateway.config import Settings


class Invocation:
    """Settings are read and parts are made when a command first asks for them."""

    def __init__(self, make_app: "Callable[[Settings], App] | None" = None) -> None:
        self._make_app = make_app

    @cached_property
    def settings(self) -> "Settings":
        """Raises: ConfigError."""
        from gateway.config import load_settings

        return load_settings()

    @cached_property
    def app(self) -> "App":
        return self.app_with(self.settings)

    def app_with(self, settings: "Settings") -> "App":
        """Return the gateway's parts under other settings than those in force."""
        if self._make_app is not None:
            return self._make_app(settings)
        from gateway.app.composition import App

        return App(settings)


def invocation_of(ctx: typer.Context) -> Invocation:
    """Return the invocation a command runs in."""
    return cast("Invocation", ctx.obj)
