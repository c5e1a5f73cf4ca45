"""What is left to do after a command: no step that is done already is named."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.errors import DevgwError

if TYPE_CHECKING:
    from gateway.app.composition import App


def next_line(gateway: "App", steps: Sequence[str], *, answers: bool = True) -> str:
    """Return the line that names the steps, before them an image where none is there; `answers`: the engine does."""
    needed = [] if answers and _has_image(gateway) else ["'devgw image build'"]
    return f"next: {', then '.join([*needed, *steps])}"


def _has_image(gateway: "App") -> bool:
    try:
        gateway.channels.choose(gateway.settings.environments.image)
    except DevgwError:
        return False
    return True
