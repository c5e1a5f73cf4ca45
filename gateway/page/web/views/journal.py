"""The journal: its records, and what proves them."""

from urllib.parse import urlencode

from starlette.responses import Response

from gateway.page.web.view import Asked, View

view = View()
_FILTERS = ("user", "action", "since", "until", "reference")


@view.get("/journal", level="auditor", nav="Journal")
async def records(asked: Asked) -> Response:
    """Show records, the last first."""
    wanted = {name: asked.query(name) for name in _FILTERS}
    denied = asked.query("denied") == "on"
    found = await asked.ask("journal.records", denied=denied, before=asked.query("before"), **wanted)
    proof = await asked.ask("journal.proof")
    kept = {name: value for name, value in wanted.items() if value} | ({"denied": "on"} if denied else {})
    older = f"/journal?{urlencode(kept | {'before': found['older']})}" if found["older"] else ""
    codes = await asked.ask("journal.codes")
    return asked.page(
        "journal.html",
        found=found,
        wanted=wanted,
        denied=denied,
        older=older,
        proof=proof,
        codes=codes,
        is_first=not asked.query("before"),
        newest=f"/journal?{urlencode(kept)}",
    )


@view.get("/journal/proof", level="auditor")
async def proof(asked: Asked) -> Response:
    """Show what the signed heads cover, and the last check."""
    return asked.page("journal_proof.html", proof=await asked.ask("journal.proof"))


@view.post("/journal/check", level="auditor")
async def check(asked: Asked) -> Response:
    """Have all of the journal checked."""
    await asked.ask("journal.check")
    return asked.done("/journal/proof", "The journal is being checked from end to end.")
