"""What the engine says of a container, read as a ObservedEnvironment. Pure: the caller asks."""

from collections.abc import Mapping
from typing import Any

from gateway.engines.docker import labels
from gateway.engines.docker.errors import one_line
from gateway.engines.interface import ObservedEnvironment
from gateway.engines.nodes import this_host
from gateway.model import EnvironmentRef

_NEVER_STARTED = "created"


def witness_of(ref: EnvironmentRef, inspected: Mapping[str, Any]) -> ObservedEnvironment:
    """Read `GET /containers/{id}/json`."""
    state = inspected["State"]
    written = inspected["Config"]["Labels"] or {}
    running = bool(state["Running"])
    has_ended = not running and state["Status"] != _NEVER_STARTED
    return ObservedEnvironment(
        ref=ref,
        running=running,
        image=written.get(labels.IMAGE, ""),
        uid=labels.uid_in(written),
        gpus=labels.gpus_in(written),
        spec_digest=written.get(labels.SPEC, ""),
        exit_code=int(state["ExitCode"]) if has_ended else None,
        detail=_detail(state, int(inspected["HostConfig"]["Memory"])),
        node=this_host(),
    )


def remainder(ref: EnvironmentRef) -> ObservedEnvironment:
    """Return what a create left that was cut off between network and container: `delete` clears it."""
    return ObservedEnvironment(
        ref,
        running=False,
        image="",
        uid=-1,
        gpus=(),
        spec_digest="",
        partial=True,
        detail="a network without a container",
        node=this_host(),
    )


def _detail(state: Mapping[str, Any], memory_bytes: int) -> str:
    if state.get("OOMKilled"):
        return f"out of memory: the kernel killed a process at the limit of {memory_bytes / 2**30:.3g} GiB"
    return one_line(state.get("Error") or "")
