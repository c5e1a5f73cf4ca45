"""How the start of a pod is going, read from its object and events: it runs, it waits, or why it never will. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.engines.kubernetes.errors import image_not_found, one_line
from gateway.engines.kubernetes.observe import Ended, ended_in, is_running
from gateway.errors import DevgwError, EngineError, QueuedError

_NO_IMAGE = frozenset({"ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})
_NO_CONTAINER = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_NO_MOUNT = frozenset({"FailedMount", "FailedAttachVolume", "ProvisioningFailed", "FailedMapVolume"})
_LASTING_MOUNT = re.compile(r"hostPath type check failed|not found|is not a directory|does not exist")
_VOLUME_WORDS = re.compile(r"persistentvolumeclaim|volume node affinity|unbound immediate", re.IGNORECASE)
_GPU_WORDS = re.compile(r"nvidia|amd\.com/gpu|device plugin|UnexpectedAdmissionError|cdi device", re.IGNORECASE)
_NOT_BEGUN = 128  # what a runtime reports of a program that it could not begin
_NO_ROOM_ON_NODE = ("OutOf", "NodeAffinity", "NodeShutdown", "Terminated", "NodePorts")


def failure_of(pod: Mapping[str, Any], image: str) -> DevgwError | None:
    """Return why a pod will not run; None while it may or does, or where it ran and ended by itself."""
    status = pod.get("status") or {}
    if is_running(pod):
        return None
    ended = ended_in(pod)
    return _container_failure(status, image) if ended is None else _end_before_start(status, ended)


def _end_before_start(status: Mapping[str, Any], ended: Ended) -> DevgwError | None:
    reason = str(status.get("reason") or "")
    why = f"{reason}: {status.get('message', '')}"
    if reason.startswith(_NO_ROOM_ON_NODE):
        return queued(why)
    if _GPU_WORDS.search(why):
        return _injection(why)
    if status.get("containerStatuses") and ended.exit_code != _NOT_BEGUN:
        return None  # it began and ended by itself: whoever waits for it to be ready says so
    said = ended.detail or "it did not say why"
    return EngineError("engine.failed", f"the node could not start it: {said}", "'kubectl describe pod' says more")


def unschedulable(pod: Mapping[str, Any]) -> str:
    """Return the scheduler's reason why no node takes a pod; empty while it has found none."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason") or "no node has room")
    return ""


def refusal_to_place(reason: str, events: Sequence[Mapping[str, Any]]) -> DevgwError:
    """Say why no node takes a pod: a volume that does not come, or no room."""
    if _VOLUME_WORDS.search(reason) and "nsufficient" not in reason:
        said = [str(one.get("message")) for one in events if one.get("reason") in _NO_MOUNT]
        return _no_volume(said[-1] if said else reason)
    return queued(reason)


def lasting_mount_failure(events: Sequence[Mapping[str, Any]]) -> DevgwError | None:
    """Return why a pod's volumes will never be mounted; a volume that is late only is none."""
    for event in events:
        message = str(event.get("message") or "")
        if event.get("reason") in _NO_MOUNT and _LASTING_MOUNT.search(message):
            return _no_volume(message)
    return None


def queued(reason: str) -> QueuedError:
    """Say that no node has room now, in the scheduler's words."""
    return QueuedError("gpu.none-free", one_line(reason), "'devgw nodes' and 'devgw gpus' show who has what")


def _container_failure(status: Mapping[str, Any], image: str) -> DevgwError | None:
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if reason in _NO_IMAGE:
            return image_not_found(image, message or reason)
        if reason in _NO_CONTAINER:
            if _GPU_WORDS.search(message):
                return _injection(message)
            if _LASTING_MOUNT.search(message) and "mount" in message:
                return _no_volume(message)
            return EngineError("engine.failed", f"the node could not start it: {one_line(message or reason)}")
    return None


def _injection(reason: str) -> EngineError:
    return EngineError("gpu.injection", f"the node could not give it the GPU: {one_line(reason)}", "'devgw nodes'")


def _no_volume(reason: str) -> EngineError:
    return EngineError(
        "mount.missing",
        f"a volume cannot be mounted: {one_line(reason)}",
        "'kubectl get pvc,storageclass' shows what is there; kubernetes.home_class and work_class name the class",
    )
