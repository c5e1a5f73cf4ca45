"""What administrators see of everybody's environments, connections and GPUs, and do to them."""

import os
from collections.abc import Sequence
from math import inf
from typing import Any, TypeVar

from gateway.auth.keys import parse_public_key
from gateway.auth.passwords import begin_hash, make_password
from gateway.environments.connection import Connection
from gateway.errors import EngineError, NotFoundError, UsageError
from gateway.gpus.reading import Reading
from gateway.gpus.selection import Situation
from gateway.model import Egress, Environment, EnvironmentRef, Limits
from gateway.operations.administration import Administration
from gateway.operations.environments import CreateOrder
from gateway.operations.nodes import NodeView, state_word
from gateway.page.desk.answers.sessions import CONNECTED
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.site import Asker, Site, acts_of
from gateway.readings import OfEach, Shared, shared_of
from policies.quantities import parse_size

answers = Answers()
ROWS = 100
_MEMORY_MIN = 64 << 20
_REASON_MAX = 200
_Row = TypeVar("_Row")
_environments: OfEach[Site, Shared[list[Environment]]] = shared_of(lambda site: site.table.all())
_nodes: OfEach[Site, Shared[list[NodeView]]] = shared_of(lambda site: Administration(site).nodes.all())
_situation: OfEach[Site, Shared[tuple[Reading, Situation]]] = shared_of(lambda site: site.leases.situation())


@answers.to("administration.environments", level="admin")
def environments(site: Site, asker: Asker, search: str = "", page: int = 1) -> dict[str, Any]:  # noqa: ARG001 - all are given both
    """Return a page of everybody's environments whose handle or state has some text."""
    found = [one for one in _environments.of(site).get() if search in str(one.ref) or search == one.state.value]
    rows, place = cut(found, page)
    return place | {
        "rows": [
            {
                "handle": str(one.ref),
                "state": one.state.value,
                "detail": one.trouble or one.detail,
                "gpus": list(one.gpus),
                "image": one.image,
                "disk": site.disks.state(one.ref, one.limits.disk_bytes).short,
                "last_use": one.last_active_at.isoformat() if one.last_active_at else None,
            }
            for one in rows
        ]
    }


@answers.to("administration.nodes", level="admin")
def nodes(site: Site, asker: Asker) -> dict[str, Any]:  # noqa: ARG001 - all are given both
    """Return the nodes that environments are spread over, and what is on each; none where they are on this host.

    `trouble` says why nobody knows it just now.
    """
    if site.runs_here:
        return {"rows": [], "trouble": ""}
    try:
        views = _nodes.of(site).get()
    except EngineError as exc:
        return {"rows": [], "trouble": exc.message}
    return {"rows": [_node(view) for view in views], "trouble": ""}


def _node(view: NodeView) -> dict[str, Any]:
    return {
        "name": view.node.name,
        "state": state_word(view.node),
        "gpus": len(view.gpus),
        "free": len(view.free),
        "environments": [str(one.ref) for one in view.environments],
        "conditions": list(view.node.conditions),
    }


@answers.to("administration.connections", level="admin")
def connections(site: Site, asker: Asker, search: str = "", page: int = 1) -> dict[str, Any]:  # noqa: ARG001 - all are given both
    """Return a page of who is connected."""
    found = [one.session for one in CONNECTED.of(site).get() if search in one.session.user]
    rows, place = cut(found, page)
    return place | {
        "rows": [
            {
                "id": one.id,
                "user": one.user,
                "address": one.address,
                "environment": one.environment,
                "channels": list(one.channels)[:20],
                "since": one.since.isoformat(),
            }
            for one in rows
        ]
    }


@answers.to("administration.gpus", level="admin")
def gpus(site: Site, asker: Asker) -> list[dict[str, Any]]:  # noqa: ARG001 - all are given both
    """Return every GPU and slice, who holds it and why it is out of use."""
    reading, now = _situation.of(site).get()
    return [
        {
            "uuid": gpu.uuid,
            "name": gpu.name,
            "index": gpu.index,
            "holder": str(now.holders.get(gpu.uuid, "")),
            "reason": now.unusable.get(gpu.uuid, ""),
        }
        for gpu in reading.gpus
    ]


@answers.to("administration.create", level="admin", journaled=True)
def create(
    site: Site, asker: Asker, handle: str, gpu: str = "0", image: str = "", memory: str = "", key: str = ""
) -> dict[str, Any]:
    """Make an environment as `devgw create` does; return how it is reached and its notebook's password."""
    ref, defaults = EnvironmentRef.parse(handle), site.settings.environments
    memory_bytes = _memory(memory) if memory else defaults.memory
    most_cpus = float(os.cpu_count() or 1) if site.runs_here else inf  # of a cluster it is the nodes that have them
    password = make_password()
    order = CreateOrder(
        ref=ref,
        image=image or defaults.image,
        limits=Limits(memory_bytes, min(defaults.cpus, most_cpus), defaults.pids, memory_bytes // 2),
        gpu_request=gpu or "0",
        egress=Egress(defaults.egress),
        lifetime_seconds=site.policy.allowance(ref.user).lifetime_seconds,
        keys=(parse_public_key(key),) if key.strip() else (),
        bcrypt_hash=begin_hash(password),
    )
    acts_of(site, asker).environments.create(order)
    return {"handle": str(ref), "ssh_line": Connection.of(site.settings, ref).ssh_line, "password": password}


@answers.to("administration.start", level="admin", journaled=True)
def start(site: Site, asker: Asker, handle: str) -> None:
    """Start somebody's environment."""
    acts_of(site, asker).environments.start(EnvironmentRef.parse(handle))


@answers.to("administration.stop", level="admin", journaled=True)
def stop(site: Site, asker: Asker, handle: str) -> None:
    """Stop somebody's environment."""
    acts_of(site, asker).environments.stop(EnvironmentRef.parse(handle))


@answers.to("administration.kill", level="admin", journaled=True)
def kill(site: Site, asker: Asker, id: str, reason: str = "") -> None:  # noqa: A002 - the word of `devgw sessions`
    """End a connection; its user is shown why."""
    require_line(reason)
    chosen = [one for one in site.live_sessions.all() if one.session.id == id]
    if not chosen:
        raise NotFoundError("session.not-found", f"there is no session {id[:40]!r}", "it may have ended by itself")
    acts_of(site, asker).sessions.kill(chosen, reason)


@answers.to("administration.quarantine", level="admin", journaled=True)
def quarantine(site: Site, asker: Asker, gpu: str, reason: str = "") -> None:
    """Take a GPU out of use."""
    require_line(reason)
    acts_of(site, asker).gpus.quarantine(gpu, reason or "by hand")


@answers.to("administration.lift", level="admin", journaled=True)
def lift(site: Site, asker: Asker, gpu: str) -> None:
    """Put a GPU back into use."""
    acts_of(site, asker).gpus.lift(gpu)


def cut(rows: Sequence[_Row], page: int) -> tuple[Sequence[_Row], dict[str, int]]:
    """Return one page of a list, and where that is."""
    pages = max(1, -(-len(rows) // ROWS))
    page = min(max(1, page), pages)
    return rows[(page - 1) * ROWS : page * ROWS], {"page": page, "pages": pages, "count": len(rows)}


def require_line(reason: str) -> None:
    """Take only what can stand on a user's screen. Raises: UsageError `reason.bad`."""
    if not reason.isprintable() or len(reason) > _REASON_MAX:
        raise UsageError(
            "reason.bad",
            f"the reason is not one line of at most {_REASON_MAX} printable characters",
            "for example: maintenance until noon",
        )


def _memory(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as exc:
        raise UsageError("memory.bad", f"memory: {exc}", "for example 16GiB") from exc
    if size < _MEMORY_MIN:
        raise UsageError("memory.bad", f"{text} is too little to start an environment", "for example 16GiB")
    return size
