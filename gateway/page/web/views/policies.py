"""Policies that were in force, and what changed from one to another."""

from urllib.parse import urlencode

from starlette.responses import Response

from gateway.page.web.view import Asked, View

view = View()


@view.get("/policies", level="auditor", nav="Policies")
async def history(asked: Asked) -> Response:
    """Show when which policy came into force, and between two of them who gained and who lost what."""
    old, new = asked.query("old"), asked.query("new")
    changes = await asked.ask("policies.difference", old=old, new=new) if old and new else None
    found = await asked.ask("policies.history", before=asked.query("before"))
    older = f"/policies?{urlencode({'before': found['older']})}" if found["older"] else ""
    return asked.page("policies.html", found=found, old=old, new=new, changes=changes, older=older)


@view.get("/policies/{sha256}", level="auditor")
async def text(asked: Asked) -> Response:
    """Show a policy as it was written."""
    sha256 = asked.path("sha256")
    return asked.page("policy_text.html", sha256=sha256, text=await asked.ask("policies.text", sha256=sha256))
