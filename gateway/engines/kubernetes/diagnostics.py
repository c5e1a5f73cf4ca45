"""What the doctor asks of a cluster: its version, and whether the gateway's account has the rights it needs."""

from typing import Any

from gateway.config.sections import KubernetesSettings
from gateway.engines.diagnostics import EngineFacts, ImageFacts
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.objects import Objects
from gateway.errors import EngineError

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
        if missing:
            raise EngineError(
                "engine.forbidden",
                f"the gateway's account may not {', '.join(missing)}",
                "give it the Role in docs/reference/kubernetes-engine.md",
            )
        return EngineFacts(
            name="kubernetes",
            version=str(version.get("gitVersion", "")),
            api_version=(int(version["major"]), int("".join(filter(str.isdigit, version["minor"])) or 0)),
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
        )

    def image(self, reference: str) -> ImageFacts:
        """Return what is known of an image before a node has it: its name."""
        return ImageFacts(reference, {}, {})

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
