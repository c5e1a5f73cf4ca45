"""The machines of a cluster as its API lists them, and which of them an environment may be put on. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.config.sections import KubernetesSettings
from gateway.engines.interface import Node
from gateway.engines.kubernetes.pod import resource_of
from gateway.engines.nodes import find_node
from gateway.errors import EngineError, LeaseError
from gateway.gpu_requests import GpuRequest, is_of_kind
from gateway.model import NOWHERE, EnvironmentSpec, Gpu, GpuUuid, NodeName

_HOSTNAME = "kubernetes.io/hostname"
_UNITS = {"": 1, "m": 0.001, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {f"{letter}i": 2 ** (10 * power) for power, letter in enumerate("KMGTPE", 1)}
_QUANTITY = re.compile(r"([0-9.]+)([A-Za-z]*)")


def node_of(found: Mapping[str, Any], known: Iterable[GpuUuid], settings: KubernetesSettings) -> Node:
    """Read a node. `known` are the UUIDs of GPUs there that environments have; the rest are known by their number."""
    conditions = {one["type"]: one["status"] for one in found["status"].get("conditions") or ()}
    is_ready = conditions.get("Ready") == "True"
    ailing = [kind for kind, value in conditions.items() if kind != "Ready" and value == "True"]
    name = NodeName(found["metadata"]["name"])
    return Node(
        name,
        is_ready=is_ready,
        takes_new=not found["spec"].get("unschedulable", False),
        gpus=tuple(_gpus(found, tuple(known), settings)),
        conditions=tuple(ailing) if is_ready else ("NotReady", *ailing),
    )


def _gpus(found: Mapping[str, Any], known: Sequence[GpuUuid], settings: KubernetesSettings) -> Iterable[Gpu]:
    """Return a GPU for each that the device plugin counts; only inside a pod is it told which one."""
    name = found["metadata"]["name"]
    model = (found["metadata"].get("labels") or {}).get(settings.gpu_model_label, "GPU")
    for resource, amount in sorted((found["status"].get("capacity") or {}).items()):
        is_slice = resource.startswith(settings.mig_resource_prefix)
        if not is_slice and resource != settings.gpu_resource:
            continue
        profile = resource.removeprefix(settings.mig_resource_prefix) if is_slice else ""
        here = [uuid for uuid in known if uuid.startswith("MIG-") == is_slice][: int(amount)]
        yield from (Gpu(uuid, model, mig_profile=profile) for uuid in here)
        for number in range(len(here), int(amount)):
            yield Gpu(GpuUuid(f"{name}:{resource}:{number}"), model, mig_profile=profile)


def require_place(
    spec: EnvironmentSpec, asked: GpuRequest, nodes: Sequence[Mapping[str, Any]], settings: KubernetesSettings
) -> None:
    """Refuse what no node could ever hold.

    Raises:
        NotFoundError: `node.not-found`.
        LeaseError: `gpu.too-many`.
        EngineError: `gpu.injection`, for GPUs by name; `engine.refused`, for more processors or memory than a node has.
    """
    if spec.gpus or asked.uuids:
        raise EngineError(
            "gpu.injection",
            "Kubernetes chooses the GPU itself, so none can be asked for by its UUID",
            "ask for a number or a model, such as --gpu 1 or --gpu h200:1",
        )
    if spec.node != NOWHERE:
        find_node([node_of(one, (), settings) for one in nodes], spec.node)
    if asked.count and not any(_most(one, asked, settings) >= asked.count for one in nodes):
        raise LeaseError(
            "gpu.too-many",
            f"no node has {asked.count} of {resource_of(asked, settings)}{_of_model(asked)}",
            "'devgw nodes' shows what each has",
        )
    for what, wanted in (("cpu", spec.limits.cpus), ("memory", float(spec.limits.memory_bytes))):
        if nodes and all(quantity((one["status"].get("allocatable") or {}).get(what, "0")) < wanted for one in nodes):
            raise EngineError(
                "engine.refused", f"no node has {what} {wanted:g}", f"'devgw create' with less {what}, or a larger node"
            )


def affinity_of(
    spec: EnvironmentSpec, asked: GpuRequest, nodes: Sequence[Mapping[str, Any]], settings: KubernetesSettings
) -> dict[str, Any]:
    """Say which nodes a pod may be on: the one asked for, those with the model asked for, none that is avoided."""
    rules = []
    if spec.node != NOWHERE:
        rules.append(_rule("In", [_hostname(nodes, spec.node)]))
    if spec.avoided_nodes:
        rules.append(_rule("NotIn", [_hostname(nodes, name) for name in spec.avoided_nodes]))
    if asked.model:
        fit = [_hostname(nodes, one["metadata"]["name"]) for one in nodes if _most(one, asked, settings)]
        rules.append(_rule("In", fit))
    if not rules:
        return {}
    terms = [{"matchExpressions": rules}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def quantity(text: str) -> float:
    """Read a quantity of Kubernetes: `4`, `500m`, `8Gi`; 0 for what is none."""
    match = _QUANTITY.fullmatch(str(text))
    units = _UNITS | _BINARY_UNITS
    return float(match[1]) * units.get(match[2], 0) if match else 0.0


def _most(found: Mapping[str, Any], asked: GpuRequest, settings: KubernetesSettings) -> int:
    """Return how many GPUs of the kind asked for a node has."""
    return sum(is_of_kind(gpu, asked) for gpu in _gpus(found, (), settings))


def _of_model(asked: GpuRequest) -> str:
    return f" of the model {asked.model}" if asked.model else ""


def _rule(operator: str, names: list[str]) -> dict[str, Any]:
    return {"key": _HOSTNAME, "operator": operator, "values": sorted(set(names))}


def _hostname(nodes: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the label by which the scheduler knows a node; it differs from its name on some clouds."""
    for one in nodes:
        if one["metadata"]["name"] == name:
            return str((one["metadata"].get("labels") or {}).get(_HOSTNAME, name))
    return name
