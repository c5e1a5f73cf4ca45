"""Gauges of each machine that an engine runs environments on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.engines.interface import Node, ObservedEnvironment
from gateway.metrics import families
from gateway.metrics.families import AnyFamily


@dataclass(frozen=True, slots=True)
class OnNodes:
    """The nodes, as devgw drains them too, and what runs on them."""

    nodes: Sequence[Node] = ()
    observed: Sequence[ObservedEnvironment] = ()


def nodes(found: OnNodes, own_gpus: int) -> Iterator[AnyFamily]:
    """Yield a sample of each family for each node; `own_gpus` are those of a host whose engine leaves them to devgw."""
    ready, takes_new, gpus, used, environments = (family.new() for family in _FAMILIES)
    running = [one for one in found.observed if one.running]
    held = Counter({node.name: 0 for node in found.nodes})
    for one in running:
        held[one.node] += len(one.gpus)
    count = Counter(one.node for one in running)
    for node in found.nodes:
        ready.add_metric([node.name], int(node.is_ready))
        takes_new.add_metric([node.name], int(node.takes_new))
        gpus.add_metric([node.name], own_gpus if node.gpus is None else len(node.gpus))
        used.add_metric([node.name], held[node.name])
        environments.add_metric([node.name], count[node.name])
    yield from (ready, takes_new, gpus, used, environments)


_FAMILIES = (
    families.NODE_READY,
    families.NODE_TAKES_NEW,
    families.NODE_GPUS,
    families.NODE_USED_GPUS,
    families.NODE_ENVIRONMENTS,
)
