"""The page as an ASGI application: guard, entrance, views, static files, and what is said when something fails."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from importlib import resources
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway.page.web import guard
from gateway.page.web.desk_line import DeskFault, DeskLine
from gateway.page.web.rendering import Rendering
from gateway.page.web.view import Asked, Shown, View, ViewRoute, form_of, is_live_part
from gateway.page.web.viewer import Viewer

_TYPES = {
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "txt": "text/plain",
    "wasm": "application/wasm",
}
_log = logging.getLogger(__name__)


class PageSite:
    """All views, joined."""

    def __init__(self, views: Iterable[View], desk: DeskLine) -> None:
        routes = [route for view in views for route in view.routes]
        menu = [(route.path, route.nav, route.level) for route in routes if route.nav]
        self._shown = Shown(desk, Rendering(menu))
        self._static = {
            file.name: file.read_bytes()
            for file in resources.files("gateway.page.web").joinpath("static").iterdir()
            if file.is_file()
        }
        self.application = Starlette(
            routes=[
                Route("/static/{name}", self._give_static, methods=["GET"]),
                Route(guard.ENTRANCE, self._enter, methods=["GET"]),
                *(Route(route.path, self._answering(route), methods=[route.method]) for route in routes),
            ],
            exception_handlers={HTTPException: self._say_http, 500: self._say_broken},
        )

    def _answering(self, route: ViewRoute) -> Any:
        async def answer(request: Request) -> Response:
            try:
                response = await self._answer(request, route)
            except guard.Refused as exc:
                response = self._said(request, exc.status, exc.reason)
            except DeskFault as exc:
                fault = exc.fault
                response = self._said(
                    request, HTTPStatus(fault["status"]), fault["message"], fault["hint"], fault["code"]
                )
            return _secured(response, route.script_src)

        return answer

    async def _answer(self, request: Request, route: ViewRoute) -> Response:
        viewer: Viewer = request.state.viewer
        guard.require_own_name(request)
        guard.require_own_page(request)
        if not guard.has_cookie(request, viewer):
            if request.method == "POST":
                raise guard.Refused(
                    HTTPStatus.FORBIDDEN, "the SSH connection changed since this form was shown; nothing was done"
                )
            return RedirectResponse(guard.first_url(request, viewer), 303)
        fields: dict[str, str] = {}
        if request.method == "POST":
            try:
                fields = await form_of(request)
            except ValueError as exc:
                raise guard.Refused(HTTPStatus.BAD_REQUEST, str(exc)) from exc
            guard.require_form_token(viewer, fields.pop(guard.FORM_FIELD, ""))
        entering = {"level": route.level, "address": request.url.path}
        level = await self._shown.desk.ask(viewer.claim, "viewer.enter", entering, live=is_live_part(request))
        viewer = request.state.viewer = replace(viewer, level=level)
        return await route.handle(Asked(request, viewer, self._shown, fields))

    async def _enter(self, request: Request) -> Response:
        """Give the connection's cookie to whoever came by the connection's first URL."""
        viewer: Viewer = request.state.viewer
        try:
            guard.require_own_name(request)
            guard.require_own_page(request)
        except guard.Refused as exc:
            return _secured(self._said(request, exc.status, exc.reason))
        token = request.query_params.get("token", "")
        response = RedirectResponse(guard.place_on_this_page(request.query_params.get("to", "")), 303)
        if guard.is_entrance_token(viewer, token):
            response.set_cookie(
                guard.cookie_name(viewer), guard.cookie_value(viewer), httponly=True, samesite="strict", path="/"
            )
        return _secured(response)

    async def _give_static(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            guard.require_own_name(request)
        except guard.Refused as exc:
            return _secured(self._said(request, exc.status, exc.reason))
        body = self._static.get(name)
        if body is None:
            return _secured(self._said(request, HTTPStatus.NOT_FOUND, "there is no such file"))
        response = Response(body, media_type=_TYPES.get(name.rpartition(".")[2], "application/octet-stream"))
        response.headers["Cache-Control"] = "private, max-age=300"
        return _secured(response)

    def _said(self, request: Request, status: HTTPStatus, reason: str, hint: str = "", code: str = "") -> Response:
        viewer = cast("Viewer", request.state.viewer)
        told = {"status": status.value, "reason": reason, "hint": hint, "code": code}
        return HTMLResponse(self._shown.rendering.page(viewer, request, "refused.html", told), status)

    async def _say_http(self, request: Request, exc: Exception) -> Response:
        status = HTTPStatus(exc.status_code) if isinstance(exc, HTTPException) else HTTPStatus.BAD_REQUEST
        return _secured(
            self._said(request, status, "there is nothing at this address" if status == 404 else status.phrase)
        )

    async def _say_broken(self, request: Request, exc: Exception) -> Response:
        _log.error("a page could not be made", exc_info=exc)
        return _secured(self._said(request, HTTPStatus.INTERNAL_SERVER_ERROR, "this page could not be made"))


def _secured(response: Response, script_src: str = "") -> Response:
    """Say what a browser may do with the page: nothing but this page's own files."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' {script_src}".rstrip()
        + "; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Referrer-Policy"] = "same-origin"  # with no-referrer a form's Origin would be null
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
    return response
