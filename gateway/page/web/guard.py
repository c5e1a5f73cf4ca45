"""What every request must be before a view sees it: for this page's own name, from this page, on this SSH connection.

A browser keeps a site's cookies for all ports of localhost, and calls pages of other ports the same site; so neither a
cookie nor SameSite says enough. A cookie counts only on the connection that it was given on, and a request that another
page made is refused by Sec-Fetch-Site, Origin and the form's token.
"""

import hmac
import re
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request

from gateway.page.web.viewer import Viewer

HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "devgw"})
"""Names under which a tunnel's own end is reached; another one is a name that was made to lead here (DNS rebinding)."""
ENTRANCE = "/enter"
FORM_FIELD = "form_token"
_LOCAL_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}")
_OWN_FETCHES = frozenset({"", "none", "same-origin"})


class Refused(Exception):  # noqa: N818 - a request is
    """Why a request is not answered."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def cookie_name(viewer: Viewer) -> str:
    """Name the cookie after its connection: several gateways may be open on several ports."""
    return f"devgw-{viewer.connection}"


def cookie_value(viewer: Viewer) -> str:
    return _made(viewer, "cookie")


def entrance_token(viewer: Viewer) -> str:
    """Return what the first URL holds."""
    return _made(viewer, "entrance")


def first_url(request: Request, viewer: Viewer) -> str:
    """Return where a browser without a cookie goes first; from there on to what it asked for."""
    wanted = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    return f"{ENTRANCE}?{urlencode({'token': entrance_token(viewer), 'to': wanted})}"


def place_on_this_page(path: str) -> str:
    """Return a path of this page: what could lead anywhere else leads to its beginning."""
    return path if _LOCAL_PATH.fullmatch(path) else "/"


def is_entrance_token(viewer: Viewer, token: str) -> bool:
    return hmac.compare_digest(token.encode(), entrance_token(viewer).encode())


def form_token(viewer: Viewer) -> str:
    """Return what every form of this connection holds."""
    return _made(viewer, "form")


def require_own_name(request: Request) -> None:
    """Refuse a name that is not this page's. Raises: Refused."""
    host = request.headers.get("host", "")
    name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not name:
        name, port = host, ""
    if name.lower() not in HOSTS or (port and not port.isdecimal()) or len(request.headers.getlist("host")) != 1:
        raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this page is reached as localhost, 127.0.0.1 or [::1]")


def require_own_page(request: Request) -> None:
    """Refuse what another page asked the browser for. Raises: Refused."""
    if request.headers.get("sec-fetch-site", "").lower() not in _OWN_FETCHES:
        raise Refused(HTTPStatus.FORBIDDEN, "another page led here; type the address yourself")
    origin = request.headers.get("origin")
    if origin is None:
        if request.method not in {"GET", "HEAD"}:
            raise Refused(HTTPStatus.FORBIDDEN, "the browser does not say which page this form is from")
        return
    if origin == "null" or urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise Refused(HTTPStatus.FORBIDDEN, "another page sent this")


def has_cookie(request: Request, viewer: Viewer) -> bool:
    """Say whether the browser came in through this SSH connection."""
    return hmac.compare_digest(request.cookies.get(cookie_name(viewer), "").encode(), cookie_value(viewer).encode())


def require_form_token(viewer: Viewer, token: str) -> None:
    """Refuse a form that this connection's page did not give out. Raises: Refused."""
    if not hmac.compare_digest(token.encode(), form_token(viewer).encode()):
        raise Refused(HTTPStatus.FORBIDDEN, "the SSH connection changed since this form was shown; nothing was done")


def _made(viewer: Viewer, what: str) -> str:
    return hmac.digest(viewer.secret.encode(), what.encode(), "sha256").hex()
