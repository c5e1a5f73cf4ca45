"""One end of a pod: asked to stop, waited for, and what is known of its end kept on the record.

A pod is taken from the cluster's list only once its node says that its process has ended: a pod that was forced away
may go on running, and then a home would have two writers.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Future
from math import ceil
from typing import Any

from gateway.engines.kubernetes import names, observe
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.objects import Objects, soon, without_kubelets_words
from gateway.errors import EngineError
from gateway.model import EnvironmentRef

_BEYOND_GRACE_SECONDS = 90.0
"""A kubelet of 1.20 sweeps each minute, and only then says of some pods that they are gone (54 seconds were seen)."""
_PAUSE_SECONDS = 0.1
_LOG_LINES = 200
_MOST_LOG = 32_768


class PodEnd:
    """Ends the pod of one environment."""

    def __init__(self, cluster: Cluster, objects: Objects, ref: EnvironmentRef) -> None:
        self._cluster = cluster
        self._objects = objects
        self._ref = ref

    def run(self, grace_seconds: float, pod: Mapping[str, Any], *, is_kept: bool = True) -> None:
        """SIGTERM, wait, then SIGKILL; with `is_kept` exit code and last lines are written on the record.

        Raises:
            EngineError: `engine.failed`, when the node does not say in time that it ended.
        """
        uid, path = pod["metadata"]["uid"], self._objects.path("pods", self._ref)
        log = self._follow_log(pod) if is_kept else None
        ended = observe.ended_in(pod)
        # grace 0 would take the object away while the process may go on
        self._cluster.delete(path, grace_seconds=0 if ended is not None else max(1, ceil(grace_seconds)), uid=uid)
        name, deadline = self._objects.name(self._ref), soon(grace_seconds + _BEYOND_GRACE_SECONDS)
        now: dict[str, Any] | None = dict(pod)
        while now is not None and ended is None:
            self._objects.watched_pods.wait_for(lambda pods: _is_over(pods.get(name), uid), min(deadline, soon(2)))
            last, now = self._objects.watched_pods.last(name), self._objects.pod(self._ref)
            for seen in (last, now):
                if seen is not None and seen["metadata"]["uid"] == uid:
                    ended = ended or observe.ended_in(seen)
            now = None if _is_gone(now, uid) else now
            if now is not None and ended is None:
                self._require_time(deadline, observe.node_in(now))
        if now is not None:
            self._cluster.delete(path, grace_seconds=0, uid=uid)
        if is_kept:
            self._keep(ended or observe.Ended(137, "it was removed by somebody else"), log)

    def _require_time(self, deadline: float, node: str) -> None:
        if time.monotonic() > deadline:
            raise EngineError(
                "engine.failed",
                f"node {node} did not say in time that {self._ref} ended",
                "try again; 'devgw nodes' shows how the node is",
            )
        time.sleep(_PAUSE_SECONDS)

    def _follow_log(self, pod: Mapping[str, Any]) -> "Future[bytes] | None":
        """Read its log to its end, which comes with the process's."""
        if not observe.is_running(pod) and observe.ended_in(pod) is None:
            return None
        query = {"follow": "true", "tailLines": str(_LOG_LINES)}
        return self._cluster.submit(self._cluster.ask_text(f"{self._objects.path('pods', self._ref)}/log", query))

    def _keep(self, ended: observe.Ended, log: "Future[bytes] | None") -> None:
        said = ""
        if log is not None:
            try:
                said = without_kubelets_words(log.result(5).decode(errors="replace"))
            except Exception:  # noqa: BLE001 - its last words are worth having, not worth failing for
                log.cancel()
        record = self._objects.record(self._ref)
        if record is None:
            return
        earlier = (record["metadata"].get("annotations") or {}).get(names.LOG, "")
        lines = (earlier + said)[-_MOST_LOG:].splitlines(keepends=True)[-_LOG_LINES:]
        notes = {names.ENDED: ended.written(), names.LOG: "".join(lines)}
        self._cluster.patch(self._objects.path("secrets", self._ref), {"metadata": {"annotations": notes}})


def _is_over(pod: Mapping[str, Any] | None, uid: str) -> bool:
    return _is_gone(pod, uid) or (pod is not None and observe.ended_in(pod) is not None)


def _is_gone(pod: Mapping[str, Any] | None, uid: str) -> bool:
    return pod is None or pod["metadata"]["uid"] != uid
