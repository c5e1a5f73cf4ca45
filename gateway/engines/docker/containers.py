"""What the engine says of a container, read as a ObservedEnvironment. Pure: the caller asks."""

from collections.abc import Mapping
from typing import Any

from gateway.engines.docker import labels
from gateway.engines.docker.errors import one_line
from gateway.engines.interface import Load, ObservedEnvironment
from gateway.engines.nodes import this_host
from gateway.engines.out_of_memory import count_out_of_memory, in_words, memory_groups
from gateway.model import EnvironmentRef

_NEVER_STARTED = "created"
_IDLE_FILES = ("total_inactive_file", "inactive_file")
"""Of cgroup v1 and v2: what of its files the kernel can give up at once."""
UNLIMITED = (
    "the engine dropped them: limits on memory, processors and processes are NOT enforced; without root it needs "
    "a host with version 2 of cgroups alone, and their delegation"
)
"""Without root, where they cannot use cgroups, Podman and Docker do so, and answer as if they had not."""

OWN_ULIMITS = (
    "the engine drops ulimits: stack, open files and locked memory are what its service has; 'default_ulimits' in its "
    "containers.conf sets others"
)
"""Podman without root takes none through Docker's API."""


def witness_of(ref: EnvironmentRef, inspected: Mapping[str, Any], *, ran_short: bool = False) -> ObservedEnvironment:
    """Read `GET /containers/{id}/json`; `ran_short` is what `has_run_short` says of it."""
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
        detail=_detail(state, int(inspected["HostConfig"]["Memory"]), ran_short=ran_short),
        caveats=_caveats(inspected["HostConfig"]),
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


def load_of(told: Mapping[str, Any]) -> Load | None:
    """Read `GET /containers/{id}/stats`; None where the daemon counts nothing, or the container has just ended."""
    used, memory = told.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage"), told.get("memory_stats") or {}
    if not used or "usage" not in memory:
        return None
    cache = next((memory["stats"][name] for name in _IDLE_FILES if name in (memory.get("stats") or {})), 0)
    return Load(used / 1e9, max(0, memory["usage"] - cache))


def has_run_short(inspected: Mapping[str, Any]) -> bool:
    """Ask the kernel of this host whether it killed something at the memory limit of a running container.

    Docker says so while the container lives on (`OOMKilled`); Podman only once it has ended.
    """
    process = int(inspected["State"].get("Pid") or 0)
    return process > 0 and count_out_of_memory(memory_groups(process, inspected["Id"])) > 0


def bind_mounts(inspected: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return source and target of what of the host's is mounted in a container."""
    return [(one["Source"], one["Destination"]) for one in inspected.get("Mounts") or () if one.get("Type") == "bind"]


def is_limited(settings: Mapping[str, Any]) -> bool:
    """Say whether a container has limits. One without has no control groups of its own: Docker counts the host's."""
    return bool(settings["Memory"])


def _caveats(settings: Mapping[str, Any]) -> tuple[str, ...]:
    limited = {str(one["Name"]).lower().removeprefix("rlimit_") for one in settings.get("Ulimits") or ()}
    dropped = {UNLIMITED: not is_limited(settings), OWN_ULIMITS: "Ulimits" in settings and "stack" not in limited}
    return tuple(caveat for caveat, is_so in dropped.items() if is_so)


def _detail(state: Mapping[str, Any], memory_bytes: int, *, ran_short: bool) -> str:
    if state.get("OOMKilled") or ran_short:
        return in_words(memory_bytes)
    return one_line(state.get("Error") or "")
