"""Recordings of terminals: found by user, time and text shown, and played."""

import json
from collections.abc import AsyncIterator
from urllib.parse import urlencode

from starlette.responses import Response, StreamingResponse

from gateway.page.web.addresses import address
from gateway.page.web.desk_line import DeskFault
from gateway.page.web.view import Asked, View

view = View()
_PLAYER = "'wasm-unsafe-eval'"
"""asciinema-player's terminal is WebAssembly."""


@view.get("/recordings", level="auditor", nav="Recordings")
async def listed(asked: Asked) -> Response:
    """Show which there are, by user and by a moment."""
    asked_for = {name: asked.query(name) for name in ("user", "at")}
    found = await asked.ask("recordings.list", page=asked.number("page", 1), **asked_for)
    paging = found | {"address": address("/recordings", **asked_for)}
    return asked.page("recordings.html", found=found, paging=paging, asked_for=asked_for)


@view.get("/recordings/search", level="auditor")
async def search(asked: Asked) -> Response:
    """Show the lines that terminals showed; it is written down what was searched for."""
    asked_for = {name: asked.query(name) for name in ("text", "user")}
    found = await asked.ask("recordings.search", before=asked.query("before"), **asked_for)
    onward = f"/recordings/search?{urlencode(asked_for | {'before': found['before']})}" if found["before"] else ""
    return asked.page("recording_search.html", found=found, asked_for=asked_for, onward=onward)


@view.get("/recordings/{id}", level="auditor", script_src=_PLAYER)
async def replay(asked: Asked) -> Response:
    """Play one; it is written down who looked."""
    one = await asked.ask("recordings.open", recording=asked.path("id"))
    return asked.page("recording.html", one=one, start=asked.number("second"))


@view.get("/recordings/{id}/text", level="auditor")
async def text(asked: Asked) -> Response:
    """Show what it showed as lines: without JavaScript, to be read aloud, to be searched."""
    one = await asked.ask("recordings.open", recording=asked.path("id"))
    found = await asked.ask("recordings.text", recording=asked.path("id"), page=asked.number("page", 1))
    return asked.page("recording_text.html", one=one, found=found)


@view.get("/recordings/{id}/cast", level="auditor")
async def cast(asked: Asked) -> Response:
    """Give the events to the player."""
    recording = asked.path("id")
    one = await asked.ask("recordings.open", recording=recording)
    first = await asked.ask("recordings.piece", recording=recording, offset=0)

    async def pieces() -> AsyncIterator[str]:
        yield f'{{"version": 2, "width": {int(one["columns"])}, "height": {int(one["rows"])}}}\n'
        piece, last = first, "[0.0]"
        while True:
            yield "".join(f"{line}\n" for line in piece["lines"])
            if piece["next"] is None:
                return
            last = piece["lines"][-1] if piece["lines"] else last
            try:
                piece = await asked.ask("recordings.piece", recording=recording, offset=piece["next"])
            except DeskFault as exc:  # removed meanwhile: what was there is played, and then why it ends
                yield json.dumps([json.loads(last)[0], "o", f"\r\ndevgw: {exc}\r\n"]) + "\n"
                return

    return StreamingResponse(pieces(), media_type="application/x-asciicast")
