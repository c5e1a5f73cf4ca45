"""What a cluster's objects say of an environment, read as an ObservedEnvironment. Pure: the caller asks."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.engines.interface import ObservedEnvironment
from gateway.engines.kubernetes.errors import one_line
from gateway.engines.kubernetes.names import DIGEST, ENDED, GPUS, IMAGE, UID
from gateway.model import NOWHERE, EnvironmentRef, GpuUuid, NodeName

_UID = re.compile(r"[0-9]{1,10}")
Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How an environment's process ended."""

    exit_code: int
    detail: str = ""

    def written(self) -> str:
        """Return it as an annotation."""
        return json.dumps({"exit_code": self.exit_code, "detail": self.detail})


def is_own(record: Found, pod: Found) -> bool:
    """Say whether a pod was made from a record: its owner by uid, and the same specification."""
    owners = pod["metadata"].get("ownerReferences") or ()
    is_owned = any(owner.get("uid") == record["metadata"]["uid"] for owner in owners)
    return is_owned and _note(pod, DIGEST) == _note(record, DIGEST) != ""


def node_in(pod: Found | None) -> NodeName:
    """Return where a pod was put."""
    return NodeName(pod["spec"].get("nodeName") or "") if pod is not None else NOWHERE


def observed_of(ref: EnvironmentRef, record: Found, pod: Found | None, *, is_away: bool) -> ObservedEnvironment:
    """Read a record and its pod; with `is_away` the pod's node does not answer."""
    uid = (record["metadata"].get("labels") or {}).get(UID, "")
    plain = ObservedEnvironment(
        ref=ref,
        running=False,
        image=_note(record, IMAGE),
        uid=int(uid) if _UID.fullmatch(uid) else -1,
        gpus=gpus_in(pod) if pod is not None else (),
        spec_digest=_note(record, DIGEST),
        node=node_in(pod),
    )
    if pod is not None and not is_own(record, pod):
        return replace(plain, gpus=(), partial=True, detail="a pod of its name that this gateway did not make")
    if is_away:
        return replace(plain, is_unknown=True)
    ended = ended_in(pod) if pod is not None else _remembered(record)
    if ended is not None:
        return replace(plain, exit_code=ended.exit_code, detail=ended.detail)
    is_examined = pod is not None and GPUS in (pod["metadata"].get("annotations") or {})
    return replace(plain, running=is_examined and is_running(pod or {}), detail=waiting_for(pod))


def remainder(ref: EnvironmentRef, detail: str) -> ObservedEnvironment:
    """Return what a create or delete left that was cut off: `delete` clears it."""
    return ObservedEnvironment(
        ref, running=False, image="", uid=-1, gpus=(), spec_digest="", partial=True, detail=detail
    )


def is_running(pod: Found) -> bool:
    """Say whether the environment's process runs."""
    return "running" in _state(pod)


def ended_in(pod: Found) -> Ended | None:
    """Return how a pod's process ended; None while it has not."""
    state = _state(pod).get("terminated")
    status = pod.get("status") or {}
    if state is not None:
        return Ended(int(state.get("exitCode", -1)), _detail(state, status))
    if status.get("phase") == "Failed":  # evicted, or refused by the node before it began
        return Ended(-1, one_line(f"{status.get('reason', '')}: {status.get('message', '')}".strip(": ")))
    return None


def gpus_in(pod: Found) -> tuple[GpuUuid, ...]:
    """Return the UUIDs that were read inside a pod."""
    return tuple(GpuUuid(uuid) for uuid in _note(pod, GPUS).split(",") if uuid)


def waiting_for(pod: Found | None) -> str:
    """Return why a pod does not run yet."""
    waiting = _state(pod).get("waiting") or {} if pod is not None else {}
    reason = str(waiting.get("reason") or "")
    if reason in {"", "ContainerCreating", "PodInitializing"}:
        return ""
    return one_line(f"{reason}: {waiting.get('message', '')}".strip(": "))


def _state(pod: Found) -> Mapping[str, Any]:
    """Return the state of the only container: one of `waiting`, `running`, `terminated`."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    return statuses[0].get("state") or {}


def _detail(state: Found, status: Found) -> str:
    if state.get("reason") == "OOMKilled":
        return "out of memory: the kernel killed it at its limit"
    if status.get("reason"):
        return one_line(f"{status['reason']}: {status.get('message', '')}".strip(": "))
    return one_line(state.get("message") or "")


def _remembered(record: Found) -> Ended | None:
    try:
        read = json.loads(_note(record, ENDED))
        return Ended(int(read["exit_code"]), str(read["detail"]))
    except (ValueError, KeyError, TypeError):
        return None


def _note(found: Found, key: str) -> str:
    return str((found["metadata"].get("annotations") or {}).get(key, ""))
