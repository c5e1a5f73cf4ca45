"""What the doctor asks of a cluster: its version, and whether the gateway's account has the rights it needs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.config.sections import KubernetesSettings
from gateway.engines.diagnostics import ClusterFacts, EngineFacts, ImageFacts
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.errors import ApiRefusalError
from gateway.engines.kubernetes.nodes import node_of
from gateway.engines.kubernetes.objects import Objects

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
RIGHTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "pods", ("get", "list", "watch", "create", "patch", "delete")),
    ("", "pods/exec", ("get",)),
    ("", "pods/log", ("get",)),
    ("", "secrets", ("get", "list", "create", "patch", "delete")),
    ("", "persistentvolumeclaims", ("create", "delete")),
    ("networking.k8s.io", "networkpolicies", ("get", "list", "create", "patch", "delete")),
)
"""What the account may do in the namespace. Events may be listed where it is allowed: they make reasons clearer."""
OLDEST_VERSION = (1, 20)
"""What came before drops fields that it does not know, such as seccompProfile before 1.19, and says nothing."""
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
CLUSTER_RIGHTS = (("", "nodes", ("list", "watch")),)


class KubernetesDiagnostics:
    """Asks one cluster; nothing is made."""

    def __init__(self, cluster: Cluster, objects: Objects, settings: KubernetesSettings) -> None:
        self._cluster = cluster
        self._objects = objects
        self._settings = settings

    def read(self) -> EngineFacts:
        with self._cluster.asked_to("describe itself"):
            version = self._cluster.get("/version")
            missing = self._missing_rights()
            if not missing:
                self._cluster.get(self._objects.path("pods"), limit="1")
            found = self._found(missing)
        return EngineFacts(
            name="kubernetes",
            version=str(version.get("gitVersion", "")),
            api_version=version_in(version),
            default_runtime=self._settings.runtime_class,
            gpu_injection="runtime-hook",
            cgroup_driver="",
            cgroup_version="",
            has_live_restore=True,
            remaps_users=False,
            seccomp="RuntimeDefault",
            root_directory="",
            is_local=False,
            is_daemon=False,
            cluster=found,
        )

    def _found(self, missing_rights: list[str]) -> ClusterFacts:
        settings = self._settings
        plain = ClusterFacts(
            missing_rights=tuple(missing_rights),
            gpu_resource=settings.gpu_resource,
            accepts_open_network=settings.accept_unenforced_network,
            oldest_version=OLDEST_VERSION,
        )
        if missing_rights:
            return plain
        named = {settings.home_class, settings.work_class}
        classes = self._classes()
        return replace(
            plain,
            missing_classes=() if classes is None else tuple(sorted(named - {""} - classes.keys())),
            needs_default_class="" in named and not settings.shared_dirs,
            has_default_class=classes is None or any(map(_is_default, classes.values())),
            gpus=sum(len(node_of(one, (), settings).gpus or ()) for one in self._objects.nodes().values()),
        )

    def _classes(self) -> dict[str, dict[str, Any]] | None:
        """Return the storage classes by name; None where the account may not look."""
        try:
            found = self._cluster.get("/apis/storage.k8s.io/v1/storageclasses")["items"]
        except ApiRefusalError as exc:
            if exc.status == 403:
                return None
            raise
        return {one["metadata"]["name"]: one for one in found}

    def image(self, reference: str) -> ImageFacts:
        """Return what is known of an image before a node has it: its name."""
        return ImageFacts(reference, {}, {}, is_elsewhere=True)

    def _missing_rights(self) -> list[str]:
        asked = [(group, kind, verb, self._settings.namespace) for group, kind, verbs in RIGHTS for verb in verbs]
        asked += [(group, kind, verb, "") for group, kind, verbs in CLUSTER_RIGHTS for verb in verbs]
        return [f"{verb} {kind}" for group, kind, verb, where in asked if not self._may(group, kind, verb, where)]

    def _may(self, group: str, kind: str, verb: str, namespace: str) -> bool:
        resource, _, part = kind.partition("/")
        wanted: dict[str, Any] = {"group": group, "resource": resource, "subresource": part, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted | ({"namespace": namespace} if namespace else {})},
        }
        return bool(self._cluster.create(_REVIEWS, review)["status"].get("allowed"))


def version_in(answer: Mapping[str, Any]) -> tuple[int, int]:
    """Read major and minor number of /version; clouds write `20+`."""
    major, minor = ("".join(filter(str.isdigit, str(answer.get(key, "")))) or "0" for key in ("major", "minor"))
    return int(major), int(minor)


def _is_default(storage_class: Mapping[str, Any]) -> bool:
    return (storage_class["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
