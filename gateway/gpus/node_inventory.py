"""The GPUs of an engine that finds them itself: what its nodes say they have, and which of them cannot be had now."""

from collections.abc import Callable, Mapping, Sequence

from gateway.engines.interface import Node
from gateway.errors import DevgwError
from gateway.gpus.reading import Reading
from gateway.model import GpuUuid

_PLACE = "the cluster"


class NodeInventory:
    """An inventory whose source is the engine. Those of a node that does not answer are listed too."""

    def __init__(self, nodes: Callable[[], Sequence[Node]]) -> None:
        self._nodes = nodes

    def read(self) -> Reading:
        try:
            nodes = self._nodes()
        except DevgwError as exc:
            return Reading("none", notes=(f"the engine's nodes cannot be asked: {exc.message}",), place=_PLACE)
        away = tuple(f"node {node.name} does not answer" for node in nodes if not node.is_ready)
        return Reading("engine", tuple(gpu for node in nodes for gpu in node.gpus or ()), away, place=_PLACE)


def out_of_reach(nodes: Sequence[Node]) -> Mapping[GpuUuid, str]:
    """Return the GPUs that nobody can get now because of their node, and why."""
    reasons: dict[GpuUuid, str] = {}
    for node in nodes:
        if not node.is_ready or not node.takes_new:
            why = "does not answer" if not node.is_ready else "takes nothing new"
            reasons |= {gpu.uuid: f"its node {node.name} {why}" for gpu in node.gpus or ()}
    return reasons
