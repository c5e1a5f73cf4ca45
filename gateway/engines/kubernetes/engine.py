"""The Engine on a Kubernetes cluster: asks in order and cleans up.

An environment is a Secret (its record), with a NetworkPolicy before it and a pod while it runs. Volumes are claims that
outlive all three. See `pod` for how a pod is confined, and `start` for how one begins.
"""

import base64
import json
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.config.sections import KubernetesSettings
from gateway.engines.interface import (
    EngineReport,
    Image,
    Load,
    Node,
    ObservedEnvironment,
    Progress,
    Scheduling,
    Service,
    ignore_progress,
)
from gateway.engines.kubernetes import names, observe
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.diagnostics import OLDEST_VERSION, KubernetesDiagnostics, version_in
from gateway.engines.kubernetes.ending import PodEnd
from gateway.engines.kubernetes.errors import (
    ApiRefusalError,
    environment_exists,
    environment_not_found,
    foreign_pod,
    image_not_found,
)
from gateway.engines.kubernetes.network_policy import network_policy
from gateway.engines.kubernetes.nodes import affinity_of, node_of, require_place
from gateway.engines.kubernetes.objects import Objects
from gateway.engines.kubernetes.pod import pod_body, record_body
from gateway.engines.kubernetes.start import PodStart
from gateway.engines.kubernetes.status import read_status
from gateway.engines.kubernetes.streams.dialing import Streams
from gateway.engines.kubernetes.volumes import Volumes, is_shared, read_files, volume_words, volumes_of
from gateway.engines.mounts import missing_source
from gateway.engines.nodes import require_away, unreachable
from gateway.engines.run_directory import RunDirectory, absent
from gateway.errors import DevgwError, EngineError
from gateway.gpu_requests import parse_gpu_request
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, GpuUuid, NodeName

_log = logging.getLogger(__name__)


class KubernetesEngine:
    """One namespace of one cluster. Several gateways may share it: each sees only what carries its id."""

    name = "kubernetes"
    scheduling = Scheduling(places_gpus=True)

    def __init__(self, settings: KubernetesSettings, gateway_id: str) -> None:
        self._settings = settings
        self._gateway_id = gateway_id
        self._cluster = Cluster(settings)
        self._objects = Objects(self._cluster, settings, gateway_id)
        self._streams = Streams(self._cluster, by_network=settings.pod_network == "auto")
        self._is_new_enough = False

    def report(self) -> EngineReport:
        with self._cluster.asked_to("describe itself"):
            version = self._cluster.get("/version")
        notes = ["the nodes' kubelets limit processes (podPidsLimit), devgw does not"]
        if self._settings.accept_unenforced_network:
            notes.append("environments start although the cluster may not enforce NetworkPolicy")
        return EngineReport(self.name, str(version.get("gitVersion", "")), "runtime-hook", tuple(notes))

    def create(self, spec: EnvironmentSpec, progress: Progress = ignore_progress) -> None:
        self._guard(spec.ref)
        asked = parse_gpu_request(spec.gpu_request)
        _require_sources(spec, self._settings)
        with self._cluster.asked_to(f"create {spec.ref}"):
            self._require_version()
            nodes = list(self._objects.nodes().values())
            require_place(spec, asked, nodes, self._settings)
            affinity = affinity_of(spec, asked, nodes, self._settings)
            name = names.object_name(self._gateway_id, spec.ref)
            volumes = volumes_of(spec, self._gateway_id, self._settings, name)
            pod = pod_body(spec, asked, self._gateway_id, self._settings, volumes, affinity)
            self._require_classes(volumes)
            if self._objects.record(spec.ref) is not None:
                raise environment_exists(spec.ref)
            if self._objects.pod(spec.ref) is not None:
                raise foreign_pod(name, self._settings.namespace)
            progress("asking the cluster whether it would take the pod")
            self._cluster.create(self._objects.path("pods"), pod, is_trial=True)
            if (place := RunDirectory.of(spec)) is not None and is_shared(place.path, self._settings):
                place.remove_sockets()
            self._make(spec, pod, volumes, progress)

    def start(self, ref: EnvironmentRef) -> None:
        self._guard(ref)
        with self._cluster.asked_to(f"start {ref}"):
            record = self._require_record(ref)
            self.make_policy(ref, Egress(record["metadata"]["annotations"].get(names.EGRESS, Egress.NONE)))
            start = PodStart(self._cluster, self._objects, self._settings, ref, record)
            start.run(lambda pod: self._end(ref).run(0, pod))

    def stop(self, ref: EnvironmentRef, timeout_seconds: float) -> None:
        self._guard(ref)
        with self._cluster.asked_to(f"stop {ref}"):
            record, pod = self._objects.record(ref), self._objects.pod(ref)
            if record is not None and pod is not None and observe.is_own(record, pod):
                self._end(ref).run(timeout_seconds, pod)

    def delete(self, ref: EnvironmentRef) -> None:
        self._guard(ref)
        with self._cluster.asked_to(f"delete {ref}"):
            record, pod = self._objects.record(ref), self._objects.pod(ref)
            if record is not None and pod is not None and observe.is_own(record, pod):
                self._end(ref).run(0, pod, is_kept=False)
            if record is not None:
                self._objects.delete("secrets", ref)
                self._remove_claims(_new_claims(record))
            self._objects.delete_policy(ref)

    def refresh(self, ref: EnvironmentRef) -> None:
        """Hand changed files to an environment: into its Secret, and by a mark on its pod at once into the pod."""
        with self._cluster.asked_to(f"hand files to {ref}"):
            record, pod = self._objects.record(ref), self._objects.pod(ref)
            if record is None:
                return
            files = _encoded(self._objects.files_of(record))
            if files == (record.get("data") or {}):
                return
            gone = dict.fromkeys(set(record.get("data") or {}) - set(files))
            changed = self._cluster.patch(self._objects.path("secrets", ref), {"data": {**files, **gone}})
            if pod is not None and observe.is_own(record, pod):
                mark = {names.CONFIG: changed["metadata"]["resourceVersion"]}
                self._cluster.patch(self._objects.path("pods", ref), {"metadata": {"annotations": mark}})

    def remove_volumes(self, ref: EnvironmentRef) -> None:
        """Remove an environment's claims, and with them the user's files, for good."""
        with self._cluster.asked_to(f"remove the volumes of {ref}"):
            for word in volume_words(ref).values():
                self._remove_claims([names.claim_name(self._gateway_id, ref, word)])

    def observe(self, ref: EnvironmentRef) -> ObservedEnvironment | None:
        with self._cluster.asked_to(f"look for {ref}"):
            record, pod = self._objects.record(ref), self._objects.pod(ref)
            if record is not None:
                return self._observed(ref, record, pod)
            if pod is not None:
                return observe.remainder(ref, "a pod without its record")
            has_policy = self._objects.policy(ref) is not None
            return observe.remainder(ref, "a network policy without a record") if has_policy else None

    def observe_all(self) -> list[ObservedEnvironment]:
        with self._cluster.asked_to("list environments"):
            records = self._objects.listed("secrets")
            pods, policies = self._objects.listed("pods"), self._objects.listed("networkpolicies")
            found = [self._observed(ref, record, pods.get(ref)) for ref, record in records.items()]
        left = [observe.remainder(ref, "a pod without its record") for ref in pods.keys() - records.keys()]
        bare = policies.keys() - records.keys() - pods.keys()
        return [*found, *left, *(observe.remainder(ref, "a network policy without a record") for ref in bare)]

    def nodes(self) -> list[Node]:
        with self._cluster.asked_to("list its nodes"):
            known: dict[str, list[GpuUuid]] = {}
            for pod in self._objects.pods().values():
                if observe.ended_in(pod) is None:
                    known.setdefault(observe.node_in(pod), []).extend(observe.gpus_in(pod))
            found = self._objects.nodes()
        return [node_of(one, known.get(name, ()), self._settings) for name, one in sorted(found.items())]

    def unreachable(self) -> Mapping[EnvironmentRef, NodeName]:
        with self._cluster.asked_to("say which nodes answer"):
            return self._objects.unreachable()

    def abandon(self, node: NodeName) -> None:
        require_away(self.nodes(), node)
        with self._cluster.asked_to(f"give up node {node}"):
            lost = [ref for ref, where in self._objects.unreachable().items() if where == node]
            for ref in lost:
                pod = self._objects.pod(ref)
                if pod is not None:  # its kubelet ends what it runs as soon as it hears that the pod is gone
                    self._cluster.delete(self._objects.path("pods", ref), grace_seconds=0, uid=pod["metadata"]["uid"])
                self._objects.delete("secrets", ref)
                self._objects.delete_policy(ref)
            self._objects.wait_until_known_gone(lost, time.monotonic() + 10)

    def dial(self, ref: EnvironmentRef, service: Service) -> socket.socket:
        self._guard(ref)
        with self._cluster.asked_to(f"connect to {service} of {ref}"):
            pod = self._objects.running_pod(ref)
            if pod is None:
                raise absent(service)
            try:
                path, loss = self._objects.path("pods", ref), self._objects.loss_of(pod)
                return self._cluster.run(self._streams.dial(pod, path, service, loss))
            except ApiRefusalError as exc:
                if exc.status in {400, 404, 500}:  # it ended between the two questions
                    raise absent(service) from exc
                raise

    def status(self, ref: EnvironmentRef) -> bytes | None:
        try:
            if ref in self.unreachable():
                return None
            with self._cluster.asked_to(f"ask {ref} how it is"):
                if self._objects.running_pod(ref) is None:
                    return None
                return self._cluster.run(read_status(self._cluster, self._objects.path("pods", ref)))
        except EngineError as exc:
            _log.info("%s could not be asked how it is: %s", ref, exc.message)
            return None

    def load(self, ref: EnvironmentRef) -> Load | None:  # noqa: ARG002 - of none is anything known
        """Return nothing: a cluster tells it through an add-on, metrics-server, which not every one has."""
        return None

    def logs(self, ref: EnvironmentRef, lines: int = 50) -> str:
        self._guard(ref)
        with self._cluster.asked_to(f"read the log of {ref}"):
            record, pod = self._require_record(ref), self._objects.pod(ref)
            earlier = (record["metadata"].get("annotations") or {}).get(names.LOG, "")
            now = self._objects.log_of(ref, lines) if pod is not None else ""
        return "".join((earlier + now).splitlines(keepends=True)[-lines:])

    def image(self, reference: str) -> Image:
        """Return the reference as it is: the nodes fetch it at `start`, and say then whether there is one."""
        if not reference or reference.startswith("-") or any(char.isspace() for char in reference):
            raise image_not_found(reference, "that is no name of an image")
        return Image(reference, reference, {})

    def images(self) -> list[Image]:
        """Return none: what a registry has, and with which labels, the cluster does not say."""
        return []

    def diagnostics(self) -> KubernetesDiagnostics:
        """Return what the doctor asks."""
        return KubernetesDiagnostics(self._cluster, self._objects, self._settings)

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        self._cluster.close()

    def _observed(
        self, ref: EnvironmentRef, record: Mapping[str, Any], pod: Mapping[str, Any] | None
    ) -> ObservedEnvironment:
        is_away = pod is not None and self._objects.is_away(pod)
        return observe.observed_of(ref, record, pod, is_away=is_away)

    def _make(self, spec: EnvironmentSpec, pod: dict[str, Any], volumes: Volumes, progress: Progress) -> None:
        """Make the policy and the claims, which a second create may share, and at last the record, which it may not."""
        made_policy, new_claims = False, list[str]()
        written = json.dumps(pod, sort_keys=True, separators=(",", ":"))
        files = _encoded(read_files(volumes.files))
        record = record_body(spec, self._gateway_id, pod, files, written, str(volumes.files or ""))
        try:
            progress("making a network policy and volumes")
            made_policy = self.make_policy(spec.ref, spec.egress)
            for claim in volumes.claims:
                if self._create_if_absent(self._objects.path("persistentvolumeclaims"), claim):
                    new_claims.append(claim["metadata"]["name"])
            record["metadata"]["annotations"][names.NEW_CLAIMS] = ",".join(new_claims)
            progress(f"making an environment from {spec.image}")
            self._cluster.create(self._objects.path("secrets"), record)
        except ApiRefusalError as exc:
            if exc.status == 409:  # another create was quicker: policy, claims and record are its
                raise environment_exists(spec.ref) from exc
            self._give_back(lambda: self._remove_claims(new_claims), spec.ref)
            if made_policy:
                self._give_back(lambda: self._objects.delete_policy(spec.ref), spec.ref)
            raise
        except BaseException:  # no answer, or Ctrl-C: the cluster may have made it all the same
            self._give_back(lambda: self.delete(spec.ref), spec.ref)
            self._give_back(lambda: self._remove_claims(new_claims), spec.ref)
            raise

    def make_policy(self, ref: EnvironmentRef, egress: Egress) -> bool:
        """Make an environment's network policy, or make it say what it should; say whether there was none.

        It is the first step of `create` and of each start: it may have been removed, or the settings have changed.
        """
        return self._objects.ensure_policy(ref, network_policy(self._gateway_id, ref, egress, self._settings))

    def _create_if_absent(self, path: str, body: Mapping[str, Any]) -> bool:
        """Make an object; say whether there was none."""
        try:
            self._cluster.create(path, body)
        except ApiRefusalError as exc:
            if exc.status != 409:
                raise
            return False
        return True

    def _remove_claims(self, claims: Iterable[str]) -> None:
        for claim in claims:
            self._cluster.delete(f"{self._objects.path('persistentvolumeclaims')}/{claim}")

    def _require_version(self) -> None:
        """Refuse a cluster that would drop parts of a pod's confinement without a word. Raises: EngineError."""
        if not self._is_new_enough:
            version = self._cluster.get("/version")
            if version_in(version) < OLDEST_VERSION:
                raise EngineError(
                    "engine.too-old",
                    f"the cluster is Kubernetes {version.get('gitVersion', '')}, which cannot confine environments",
                    f"update it to {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]} or newer",
                )
            self._is_new_enough = True

    def _require_classes(self, volumes: Volumes) -> None:
        """Refuse a storage class that is not there; where the gateway may not look, the pod's events tell later."""
        for name in sorted({claim["spec"].get("storageClassName", "") for claim in volumes.claims} - {""}):
            try:
                found = self._cluster.find(f"/apis/storage.k8s.io/v1/storageclasses/{name}")
            except ApiRefusalError as exc:
                if exc.status == 403:
                    return
                raise
            if found is None:
                raise EngineError(
                    "mount.missing",
                    f"the cluster has no storage class {name}",
                    "'kubectl get storageclass' lists them; set kubernetes.home_class and kubernetes.work_class",
                )

    def _give_back(self, undo: Callable[[], None], ref: EnvironmentRef) -> None:
        """Remove what a failed create made; what cannot be removed now is a partial one that reconcile finds."""
        try:
            undo()
        except (DevgwError, ApiRefusalError) as exc:
            _log.warning("could not clean up after a failed create of %s: %s", ref, exc)

    def _end(self, ref: EnvironmentRef) -> PodEnd:
        return PodEnd(self._cluster, self._objects, ref)

    def _require_record(self, ref: EnvironmentRef) -> dict[str, Any]:
        record = self._objects.record(ref)
        if record is None:
            raise environment_not_found(ref)
        return record

    def _guard(self, ref: EnvironmentRef) -> None:
        node = self.unreachable().get(ref)
        if node is not None:
            raise unreachable(ref, node)


def _new_claims(record: Mapping[str, Any]) -> list[str]:
    """Return the claims into which nobody can have written: they were made with a record whose pod never ran."""
    written = (record["metadata"].get("annotations") or {}).get(names.NEW_CLAIMS, "")
    return [claim for claim in written.split(",") if claim]


def _encoded(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(content).decode() for name, content in files.items()}


def _require_sources(spec: EnvironmentSpec, settings: KubernetesSettings) -> None:
    """Refuse a spec whose shared source, or whose directory of files, is not there. Raises: EngineError."""
    for mount in spec.mounts:
        needs = is_shared(mount.source, settings) or mount.target == "/etc/devgw/env"
        if needs and not mount.source.exists():
            raise missing_source(str(mount.source), mount.target)
