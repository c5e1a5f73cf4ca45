"""Everybody's environments, connections and GPUs, for administrators, and what they do to them."""

from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from gateway.page.web.view import Asked, View

view = View()


@view.get("/administration", level="admin", nav="Administration")
async def administration(asked: Asked) -> Response:
    """Show everybody's environments, the nodes that they are spread over, and the form for a new one."""
    search = asked.query("search")
    nodes = await asked.ask("administration.nodes")
    found = await asked.ask("administration.environments", search=search, page=asked.number("page", 1))
    address = f"/administration?{urlencode({'search': search})}&page="
    return asked.page(
        "administration.html",
        search=search,
        found=placed(found, nodes),
        nodes=nodes,
        paging=found | {"address": address},
    )


def placed(found: dict[str, Any], nodes: dict[str, Any]) -> dict[str, Any]:
    """Return what was found, with the node of each environment."""
    where = {handle: node["name"] for node in nodes["rows"] for handle in node["environments"]}
    return found | {"rows": [one | {"node": where.get(one["handle"], "none")} for one in found["rows"]]}


@view.get("/administration/connections", level="admin", nav="Connected")
async def connections(asked: Asked) -> Response:
    """Show who is connected."""
    search = asked.query("search")
    found = await asked.ask("administration.connections", search=search, page=asked.number("page", 1))
    address = f"/administration/connections?{urlencode({'search': search})}&page="
    return asked.page("connections.html", search=search, found=found, paging=found | {"address": address})


@view.get("/administration/gpus", level="admin", nav="GPUs in use")
async def gpus(asked: Asked) -> Response:
    """Show every GPU, with what takes it out of use and back."""
    return asked.page("gpus.html", gpus=await asked.ask("administration.gpus"))


@view.post("/administration/create", level="admin")
async def create(asked: Asked) -> Response:
    """Make an environment; its password is shown on this page alone."""
    names = ("handle", "gpu", "image", "memory", "key")
    made = await asked.ask("administration.create", **{name: asked.field(name).strip() for name in names})
    return asked.page("created.html", made=made)


@view.post("/administration/environments/{handle}/start", level="admin")
async def start(asked: Asked) -> Response:
    """Start one."""
    await asked.ask("administration.start", handle=asked.path("handle"))
    return asked.done("/administration", f"{asked.path('handle')} runs.")


@view.post("/administration/environments/{handle}/stop", level="admin")
async def stop(asked: Asked) -> Response:
    """Stop one."""
    await asked.ask("administration.stop", handle=asked.path("handle"))
    return asked.done("/administration", f"{asked.path('handle')} is stopped.")


@view.post("/administration/connections/{id}/end", level="admin")
async def end(asked: Asked) -> Response:
    """End a connection."""
    await asked.ask("administration.kill", id=asked.path("id"), reason=asked.field("reason").strip())
    return asked.done("/administration/connections", f"The connection {asked.path('id')} ends within a second.")


@view.post("/administration/gpus/{gpu}/quarantine", level="admin")
async def quarantine(asked: Asked) -> Response:
    """Take a GPU out of use."""
    await asked.ask("administration.quarantine", gpu=asked.path("gpu"), reason=asked.field("reason").strip())
    return asked.done("/administration/gpus", f"{asked.path('gpu')} is out of use; whoever has it keeps it.")


@view.post("/administration/gpus/{gpu}/lift", level="admin")
async def lift(asked: Asked) -> Response:
    """Put a GPU back into use."""
    await asked.ask("administration.lift", gpu=asked.path("gpu"))
    return asked.done("/administration/gpus", f"{asked.path('gpu')} is in use again.")
