"""Judges a cluster: rights, version, storage, network and GPUs, as far as the gateway's account may see them."""

from collections.abc import Iterator

from gateway.doctor.finding import Finding, failure, ok, warning
from gateway.engines.diagnostics import ClusterFacts, EngineFacts


def judge_cluster(cluster: ClusterFacts, engine: EngineFacts) -> Iterator[Finding]:
    """Judge what the gateway needs of it; without its rights the rest cannot be judged."""
    yield judge_version(cluster, engine)
    yield judge_rights(cluster)
    if cluster.missing_rights:
        return
    yield judge_storage(cluster)
    yield judge_network(cluster)
    yield judge_gpus(cluster)
    yield ok("engine.limits", "memory and processors are limited; the nodes' podPidsLimit limits processes")


def judge_version(cluster: ClusterFacts, engine: EngineFacts) -> Finding:
    """An older API drops what it does not know, seccomp among it, and says nothing."""
    check = "engine.version"
    if engine.api_version < cluster.oldest_version:
        oldest = ".".join(map(str, cluster.oldest_version))
        return failure(check, f"{engine.name} {engine.version} is too old: environments would be less confined than "
                       "they are said to be", f"update the cluster to {oldest} or newer")  # fmt: skip
    return ok(check, f"{engine.name} {engine.version} has what devgw uses")


def judge_rights(cluster: ClusterFacts) -> Finding:
    """Name what the account lacks, each as the Role writes it."""
    check = "engine.rights"
    if cluster.missing_rights:
        return failure(
            check,
            f"the gateway's account may not {', '.join(cluster.missing_rights)}",
            "give it the Role and ClusterRole in docs/reference/kubernetes-engine.md",
        )
    return ok(check, "the gateway's account may do what it needs")


def judge_storage(cluster: ClusterFacts) -> Finding:
    """A claim without a class that makes its volume waits for ever."""
    check = "engine.storage"
    if cluster.missing_classes:
        return failure(
            check,
            f"the cluster has no storage class {', '.join(cluster.missing_classes)}",
            "'kubectl get storageclass' lists them; set kubernetes.home_class and kubernetes.work_class",
        )
    if cluster.needs_default_class and not cluster.has_default_class:
        return warning(
            check,
            "no storage class is the default one, and volumes name none",
            "set kubernetes.home_class and kubernetes.work_class, or put the state below kubernetes.shared_dirs",
        )
    return ok(check, "the storage classes of volumes are there")


def judge_network(cluster: ClusterFacts) -> Finding:
    """Whether NetworkPolicy is enforced is seen from inside a pod alone, at each start."""
    check = "engine.network"
    if cluster.accepts_open_network:
        return warning(
            check,
            "environments start although they may reach each other and the outside: accept_unenforced_network is set",
            "use a network plugin that enforces NetworkPolicy (Calico, Cilium), then leave that setting out",
        )
    return ok(check, "an environment that reaches what no policy opens is not started")


def judge_gpus(cluster: ClusterFacts) -> Finding:
    """The scheduler knows a GPU only by the name that the device plugin gave it."""
    check = "engine.gpus"
    if not cluster.gpus:
        return warning(
            check,
            f"no node has {cluster.gpu_resource}, so nobody can get a GPU",
            "install the vendor's device plugin, or set kubernetes.gpu_resource to what 'kubectl describe node' shows",
        )
    return ok(check, f"the nodes have {cluster.gpus} of {cluster.gpu_resource}")
