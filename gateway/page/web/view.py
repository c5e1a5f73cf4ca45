"""What a view is: routes with the level they are for, and what a handler is asked with."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateway.page.web.viewer import Viewer
from policies.requests import PageLevel

if TYPE_CHECKING:
    from gateway.page.web.desk_line import DeskLine
    from gateway.page.web.rendering import Rendering

FORM_MAX = 64 << 10
FORM_FIELDS_MAX = 100


@dataclass(frozen=True, slots=True)
class Shown:
    """What pages are made with."""

    desk: "DeskLine"
    rendering: "Rendering"


class Asked:
    """One request of one viewer."""

    def __init__(self, request: Request, viewer: Viewer, shown: Shown, fields: Mapping[str, str]) -> None:
        self.request = request
        self.viewer = viewer
        self._shown = shown
        self._fields = fields

    async def ask(self, question: str, /, **values: Any) -> Any:
        """Ask the gateway. Raises: DeskFault, DeskGone."""
        return await self._shown.desk.ask(self.viewer.claim, question, values, live=self.is_part)

    @property
    def is_part(self) -> bool:
        """Whether a live part asks for itself alone (htmx)."""
        return is_live_part(self.request)

    def query(self, name: str, default: str = "") -> str:
        """Return a value of the URL."""
        return self.request.query_params.get(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """Return a number of the URL; what is none, or beyond a page's reach, is the default."""
        text = self.query(name)
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else default

    def path(self, name: str) -> str:
        """Return a part of the path."""
        return str(self.request.path_params[name])

    def field(self, name: str, default: str = "") -> str:
        """Return a field of the form that was sent."""
        return self._fields.get(name, default)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page made from a template."""
        return HTMLResponse(self._shown.rendering.page(self.viewer, self.request, template, values), status)

    def done(self, path: str, note: str) -> Response:
        """Lead on after an act, with a note that is shown once."""
        self._shown.rendering.notes.leave(self.viewer.connection, note)
        return RedirectResponse(path, 303)


def is_live_part(request: Request) -> bool:
    """Say whether a live part of a page asks for itself (htmx)."""
    return "hx-request" in request.headers


Handle = Callable[[Asked], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class ViewRoute:
    """One address of one view."""

    method: str
    path: str
    handle: Handle
    level: PageLevel = "user"
    nav: str = ""
    script_src: str = ""


class View:
    """The addresses of one file."""

    def __init__(self) -> None:
        self.routes: list[ViewRoute] = []

    def get(
        self, path: str, *, level: PageLevel = "user", nav: str = "", script_src: str = ""
    ) -> Callable[[Handle], Handle]:
        """Register what shows a page; with `nav` the menu has it. It changes nothing."""

        def register(handle: Handle) -> Handle:
            self.routes.append(ViewRoute("GET", path, handle, level, nav, script_src))
            return handle

        return register

    def post(self, path: str, *, level: PageLevel = "user") -> Callable[[Handle], Handle]:
        """Register what does something; origin, cookie and form token are proven before it is called."""

        def register(handle: Handle) -> Handle:
            self.routes.append(ViewRoute("POST", path, handle, level))
            return handle

        return register


async def form_of(request: Request) -> dict[str, str]:
    """Read a form. Raises: ValueError, for one that is too large or of another kind."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ValueError("a form of this page is application/x-www-form-urlencoded")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > FORM_MAX:
            raise ValueError(f"a form has at most {FORM_MAX // 1024} KiB")
    pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    return dict(pairs)
