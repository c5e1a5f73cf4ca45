"""A gateway's objects in its namespace: found by name, listed by label, watched; and which of them are out of reach."""

import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes import names, observe
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.errors import ApiRefusalError, ApiSilenceError
from gateway.engines.kubernetes.streams.loss import Loss
from gateway.engines.kubernetes.volumes import read_files
from gateway.engines.kubernetes.watch import Watched
from gateway.model import EnvironmentRef, NodeName

_GROUPS = {"networkpolicies": "/apis/networking.k8s.io/v1"}
_KUBELETS_OWN_WORDS = re.compile(
    r"(rpc error: code = NotFound desc = an error occurred when try to find container [^\n]*"
    r"|unable to retrieve container logs for [^\n]*)\Z"
)
"""Written behind a log, without an end of line, by a kubelet whose container is just being removed."""


def without_kubelets_words(said: str) -> str:
    """Return a log without them."""
    return _KUBELETS_OWN_WORDS.sub("", said)


class Objects:
    """The objects of one gateway."""

    def __init__(self, cluster: Cluster, settings: KubernetesSettings, gateway_id: str) -> None:
        self._cluster = cluster
        self._settings = settings
        self._gateway_id = gateway_id
        self.watched_pods = Watched(cluster, self.path("pods"), names.selector_of(gateway_id))
        self._nodes = Watched(cluster, "/api/v1/nodes")

    def path(self, kind: str, ref: EnvironmentRef | None = None) -> str:
        """Return where a kind of object, or one environment's, is found in the API."""
        group = _GROUPS.get(kind, "/api/v1")
        name = "" if ref is None else f"/{names.object_name(self._gateway_id, ref)}"
        return f"{group}/namespaces/{self._settings.namespace}/{kind}{name}"

    def name(self, ref: EnvironmentRef) -> str:
        return names.object_name(self._gateway_id, ref)

    def record(self, ref: EnvironmentRef) -> dict[str, Any] | None:
        return self._ours(self._cluster.find(self.path("secrets", ref)))

    def pod(self, ref: EnvironmentRef) -> dict[str, Any] | None:
        """Return what stands at an environment's pod's place, whoever made it."""
        return self._cluster.find(self.path("pods", ref))

    def policy(self, ref: EnvironmentRef) -> dict[str, Any] | None:
        return self._ours(self._cluster.find(self.path("networkpolicies", ref)))

    def running_pod(self, ref: EnvironmentRef) -> dict[str, Any] | None:
        """Return the pod of an environment whose process runs, from what is watched."""
        pod = self.pods().get(self.name(ref))
        if pod is None:
            pod = self._ours(self.pod(ref))
        return pod if pod is not None and observe.is_running(pod) else None

    def listed(self, kind: str) -> dict[EnvironmentRef, dict[str, Any]]:
        """Return a gateway's objects of one kind."""
        found = self._cluster.get(self.path(kind), labelSelector=names.selector_of(self._gateway_id))["items"]
        refs = {names.ref_in(one, self._gateway_id): one for one in found}
        return {ref: one for ref, one in refs.items() if ref is not None}

    def delete(self, kind: str, ref: EnvironmentRef) -> None:
        self._cluster.delete(self.path(kind, ref))

    def delete_policy(self, ref: EnvironmentRef) -> None:
        if self.policy(ref) is not None:
            self.delete("networkpolicies", ref)

    def ensure_policy(self, ref: EnvironmentRef, body: Mapping[str, Any]) -> bool:
        """Make the policy, or make the one that is there say the same; say whether there was none."""
        try:
            self._cluster.create(self.path("networkpolicies"), body)
        except ApiRefusalError as exc:
            if exc.status != 409:
                raise
            self._cluster.patch(self.path("networkpolicies", ref), {"spec": body["spec"]})
            return False
        return True

    def pods(self) -> Mapping[str, dict[str, Any]]:
        """Return a gateway's pods by name, as they are watched."""
        return self.watched_pods.all()

    def nodes(self) -> Mapping[str, dict[str, Any]]:
        return self._nodes.all()

    def is_away(self, pod: Mapping[str, Any]) -> bool:
        """Say whether a pod may run where nobody can see it."""
        where = observe.node_in(pod)
        if not where or observe.ended_in(pod) is not None:
            return False
        return not _is_ready(self.nodes().get(where))

    def loss_of(self, pod: Mapping[str, Any]) -> Loss:
        """Return what says whether streams into a pod lead nowhere. A pod that no watch has told of yet is not gone."""
        name, uid, where = pod["metadata"]["name"], pod["metadata"]["uid"], observe.node_in(pod)
        was_seen = False

        def is_gone() -> bool:
            nonlocal was_seen
            now = self.watched_pods.known().get(name)
            is_there = now is not None and now["metadata"]["uid"] == uid
            was_seen = was_seen or is_there
            return was_seen and not is_there

        def is_away() -> bool:
            node = self._nodes.known().get(where)
            return node is not None and not _is_ready(node)

        return Loss(is_gone, is_away)

    def unreachable(self) -> dict[EnvironmentRef, NodeName]:
        """Return the environments whose node does not answer, without asking while the watches live."""
        away = {names.ref_in(pod, self._gateway_id): pod for pod in self.pods().values() if self.is_away(pod)}
        return {ref: observe.node_in(pod) for ref, pod in away.items() if ref is not None}

    def wait_until_known_gone(self, refs: Iterable[EnvironmentRef], deadline: float) -> None:
        """Wait until the watch has told that pods are gone."""
        wanted = {self.name(ref) for ref in refs}
        self.watched_pods.wait_for(lambda pods: not wanted & pods.keys(), deadline)

    def log_of(self, ref: EnvironmentRef, lines: int) -> str:
        """Return what a pod wrote; nothing while it has not begun."""
        try:
            said = self._cluster.text(f"{self.path('pods', ref)}/log", tailLines=str(lines))
        except ApiRefusalError as exc:
            if exc.status in {400, 404}:
                return ""
            raise
        return without_kubelets_words(said)

    def events_of(self, ref: EnvironmentRef) -> list[dict[str, Any]]:
        """Return what the cluster said of a pod and its claims; nothing where the gateway may not ask."""
        try:
            found = self._cluster.get(self.path("events"), fieldSelector=f"involvedObject.name={self.name(ref)}")[
                "items"
            ]
        except (ApiRefusalError, ApiSilenceError):
            return []
        return sorted(found, key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")

    def files_of(self, record: Mapping[str, Any]) -> dict[str, bytes]:
        """Return the files that an environment should see now."""
        place = (record["metadata"].get("annotations") or {}).get(names.FILES, "")
        return read_files(Path(place)) if place and Path(place).is_dir() else {}

    def _ours(self, found: dict[str, Any] | None) -> dict[str, Any] | None:
        return found if found is not None and names.ref_in(found, self._gateway_id) is not None else None


def _is_ready(node: Mapping[str, Any] | None) -> bool:
    conditions = {one["type"]: one["status"] for one in (node or {"status": {}})["status"].get("conditions") or ()}
    return conditions.get("Ready") == "True"


def soon(seconds: float) -> float:
    """Return the deadline after so many seconds."""
    return time.monotonic() + seconds
