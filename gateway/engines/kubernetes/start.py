"""One start: the pod is made from the record, waited for, and looked into before anybody else gets in."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes import examine, launch, names, observe
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.errors import ApiRefusalError, ApiSilenceError, foreign_pod
from gateway.engines.kubernetes.objects import Objects, soon
from gateway.engines.kubernetes.streams.by_exec import capture
from gateway.errors import DevgwError, EngineError, TimedOutError
from gateway.model import Egress, EnvironmentRef

_LOOK_SECONDS = 2.0  # between questions for events, which are no part of a pod
_ENFORCING_SECONDS = 8.0  # a network plugin may need some time to close a new pod

EndPod = Callable[[Mapping[str, Any]], None]


class PodStart:
    """Starts one environment. Starting a running one changes nothing; one that was cut off is gone on with."""

    def __init__(
        self,
        cluster: Cluster,
        objects: Objects,
        settings: KubernetesSettings,
        ref: EnvironmentRef,
        record: Mapping[str, Any],
    ) -> None:
        self._cluster = cluster
        self._objects = objects
        self._settings = settings
        self._ref = ref
        self._record = record

    def run(self, end_pod: EndPod) -> None:
        """Have it run; a pod that will not is removed again by `end_pod`."""
        pod = self._objects.pod(self._ref)
        if pod is not None and not observe.is_own(self._record, pod):
            raise foreign_pod(self._objects.name(self._ref), self._settings.namespace)
        if pod is not None and (observe.ended_in(pod) is not None or "deletionTimestamp" in pod["metadata"]):
            end_pod(pod)
            pod = None
        if pod is None:
            pod = self._make()
        if names.GPUS in (pod["metadata"].get("annotations") or {}) and observe.is_running(pod):
            return
        try:
            self._wait(pod["metadata"]["uid"])
            self._examine()
        except (DevgwError, ApiRefusalError, ApiSilenceError, KeyboardInterrupt):
            end_pod(pod)
            raise

    def _make(self) -> dict[str, Any]:
        metadata = self._record["metadata"]
        body = json.loads(metadata["annotations"][names.POD])
        body["metadata"]["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Secret", "name": metadata["name"], "uid": metadata["uid"]}
        ]
        try:
            return self._cluster.create(self._objects.path("pods"), body)
        except ApiRefusalError as exc:
            pod = self._objects.pod(self._ref) if exc.status == 409 else None
            if pod is None or not observe.is_own(self._record, pod):
                raise
            return pod  # another start was quicker

    def _wait(self, uid: str) -> None:
        """Block until its process runs, or has run and ended. Raises: DevgwError, with the cluster's own reason."""
        name, image = self._objects.name(self._ref), self._image()
        deadline, schedule_by = soon(self._settings.start_timeout), soon(self._settings.schedule_timeout)
        while time.monotonic() < deadline:
            self._objects.watched_pods.wait_for(
                lambda pods: name in pods and _is_decided(pods[name], uid, image), min(deadline, soon(_LOOK_SECONDS))
            )
            pod = self._objects.watched_pods.last(name)
            if pod is None or pod["metadata"]["uid"] != uid:
                continue
            if observe.is_running(pod) or (pod.get("status") or {}).get("phase") == "Succeeded":
                return
            if (failure := launch.failure_of(pod, image)) is not None:
                raise failure
            if observe.ended_in(pod) is not None:
                return
            reason = launch.unschedulable(pod)
            if reason and time.monotonic() > schedule_by:
                raise launch.refusal_to_place(reason, self._objects.events_of(self._ref))
            if not reason and (late := launch.lasting_mount_failure(self._objects.events_of(self._ref))) is not None:
                raise late
        raise TimedOutError(
            "environment.not-ready",
            f"{self._ref}: its pod did not run within {self._settings.start_timeout:.0f} s",
            "'kubectl describe pod' says what it waits for; kubernetes.start_timeout is the limit",
        )

    def _examine(self) -> None:
        """Look inside, and write on the pod which GPUs it has: from then on it is observed as running."""
        path = self._objects.path("pods", self._ref)
        written = json.loads(self._record["metadata"]["annotations"][names.POD])["metadata"]["annotations"]
        egress = Egress(self._record["metadata"]["annotations"].get(names.EGRESS, Egress.NONE))
        by = soon(_ENFORCING_SECONDS)
        while True:
            try:
                output = self._cluster.run(capture(self._cluster, path, examine.command_for(self._cluster.address)))
                found = examine.read(output)
            except (ApiRefusalError, ApiSilenceError, EngineError):
                if self._has_ended():
                    self._keep_claims()
                    return  # it was over before anybody could look
                raise
            is_accepted = self._settings.accept_unenforced_network
            try:
                examine.require_closed_network(found, egress, is_accepted=is_accepted)
                break
            except DevgwError:
                if time.monotonic() > by:
                    raise
        gpus = examine.require_gpus(found, int(written[names.GPU_COUNT]))
        self._keep_claims()  # before anybody can write into them
        self._cluster.patch(path, examine.annotation_of(gpus))

    def _keep_claims(self) -> None:
        """Write down that its volumes may have files now."""
        if (self._record["metadata"].get("annotations") or {}).get(names.NEW_CLAIMS):
            unmarked = {"metadata": {"annotations": {names.NEW_CLAIMS: None}}}
            self._cluster.patch(self._objects.path("secrets", self._ref), unmarked)

    def _has_ended(self) -> bool:
        pod = self._objects.pod(self._ref)
        return pod is None or observe.ended_in(pod) is not None

    def _image(self) -> str:
        return str(self._record["metadata"]["annotations"].get(names.IMAGE, ""))


def _is_decided(pod: Mapping[str, Any], uid: str, image: str) -> bool:
    is_it = pod["metadata"]["uid"] == uid
    return is_it and (
        observe.is_running(pod) or observe.ended_in(pod) is not None or launch.failure_of(pod, image) is not None
    )
