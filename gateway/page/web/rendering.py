"""Makes pages from templates, which are read once at the start: the process may read no files later."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import jinja2.debug  # noqa: F401 - what a fault in a template needs, and cannot load later
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request

from gateway.page.web.guard import FORM_FIELD, form_token
from gateway.page.web.levels import includes
from gateway.page.web.viewer import Viewer
from gateway.version import VERSION

_NOTES_MAX = 1000


class Notes:
    """What is shown once on the next page of a connection."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, str] = OrderedDict()

    def leave(self, connection: str, note: str) -> None:
        self._left[connection] = note
        while len(self._left) > _NOTES_MAX:
            self._left.popitem(last=False)

    def take(self, connection: str) -> str:
        return self._left.pop(connection, "")


class _Templates(Environment):
    """Templates in which `one.keys` is what the desk called keys, and no method of the mapping that holds it."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an item of a mapping before an attribute."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


class Rendering:
    """Every template, compiled."""

    def __init__(self, menu: Sequence[tuple[str, str, str]]) -> None:
        """`menu` holds path, words and level."""
        texts = {
            file.name: file.read_text(encoding="utf-8")
            for file in resources.files("gateway.page.web").joinpath("templates").iterdir()
            if file.name.endswith(".html")
        }
        self._environment = _Templates(
            loader=DictLoader(texts), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._environment.filters |= {"when": when, "moment": moment_text, "size": size, "age": age, "span": span}
        self._environment.globals |= {"version": VERSION}
        for name in texts:
            self._environment.get_template(name)
        self._menu = menu
        self.notes = Notes()

    def page(self, viewer: Viewer, request: Request, template: str, values: Mapping[str, Any]) -> str:
        """Return a page's text."""
        return self._environment.get_template(template).render(
            viewer=viewer,
            here=request.url.path,
            menu=[(path, words) for path, words, level in self._menu if includes(viewer.level, level)],
            note="" if request.headers.get("hx-request") else self.notes.take(viewer.connection),
            csrf=lambda: Markup('<input type="hidden" name="{}" value="{}">').format(FORM_FIELD, form_token(viewer)),
            **values,
        )


def when(moment: str | None) -> Markup:
    """Write a moment (ISO 8601) as people read it, in UTC. It is an element: in an attribute stands `moment_text`."""
    if not moment:
        return Markup("–")  # noqa: RUF001 - a dash stands for nothing
    return Markup('<time datetime="{}">{}</time>').format(moment, moment_text(moment))


def moment_text(moment: str) -> str:
    """Write a moment (ISO 8601) as text."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def age(moment: str | None) -> str:
    """Say how long ago, or in how long, a moment is."""
    if not moment:
        return "never"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    words = span(abs(seconds))
    return f"{words} ago" if seconds >= 0 else f"in {words}"


def span(seconds: float) -> str:
    """Write how long."""
    for unit, size_seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size_seconds:
            return f"{seconds / size_seconds:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Write bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
