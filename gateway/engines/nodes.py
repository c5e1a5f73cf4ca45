"""The machines that an engine runs environments on; for an engine of one host, the answers that follow from that."""

import platform
import re
from collections.abc import Mapping

from gateway.engines.interface import Node, Scheduling
from gateway.errors import ConflictError, NodeError, NotFoundError
from gateway.model import EnvironmentRef, NodeName

_NO_PART_OF_A_NAME = re.compile(r"[^A-Za-z0-9._-]")


def this_host() -> NodeName:
    """Return the name of this machine."""
    return NodeName(_NO_PART_OF_A_NAME.sub("-", platform.node()).strip(".-_") or "localhost")


class OneNode:
    """What an engine answers whose environments all live on this host: it is there, whoever can ask."""

    scheduling = Scheduling()

    def nodes(self) -> list[Node]:
        return [Node(this_host())]

    def unreachable(self) -> Mapping[EnvironmentRef, NodeName]:
        return {}

    def abandon(self, node: NodeName) -> None:
        require_away(self.nodes(), node)

    def refresh(self, ref: EnvironmentRef) -> None:
        """Change nothing: an environment sees the gateway's own files."""

    def remove_volumes(self, ref: EnvironmentRef) -> None:
        """Change nothing: volumes are directories of this host, and the gateway's own to remove."""


def require_away(nodes: list[Node], name: NodeName) -> Node:
    """Return a node that does not answer. Raises: as `Engine.abandon`."""
    node = find_node(nodes, name)
    if node.is_ready:
        raise ConflictError(
            "node.alive",
            f"node {name} answers, so what runs there goes on and is known",
            f"'devgw node drain {name}' keeps new environments away from it",
        )
    return node


def find_node(nodes: list[Node], name: str) -> Node:
    """Return the node of that name. Raises: NotFoundError `node.not-found`."""
    for node in nodes:
        if node.name == name:
            return node
    known = ", ".join(node.name for node in nodes) or "none"
    raise NotFoundError("node.not-found", f"there is no node {name[:60]!r}", f"nodes: {known}")


def unreachable(ref: EnvironmentRef, node: NodeName) -> NodeError:
    """Say why nothing is done about an environment."""
    return NodeError(
        "node.unreachable",
        f"node {node} does not answer, and {ref} may still run there: nothing is done about it, "
        "so that its files have one writer",
        f"it goes on when {node} returns; when that is dead for certain, 'devgw node lost {node}'",
    )
