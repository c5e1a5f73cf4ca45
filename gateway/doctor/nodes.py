"""Judges each node that the engine runs environments on."""

from collections.abc import Iterator, Sequence

from gateway.doctor.finding import Finding, failure, ok, warning
from gateway.engines.interface import Node


def judge_nodes(nodes: Sequence[Node]) -> Iterator[Finding]:
    """One finding for each; a node that does not answer is the worst."""
    for node in nodes:
        yield judge_node(node)


def judge_node(node: Node) -> Finding:
    """What the engine says ails it is shown in the engine's own words."""
    check, words = "node.state", "; ".join(node.conditions)
    if not node.is_ready:
        message = f"{node.name} does not answer, and its environments are left alone{f' ({words})' if words else ''}"
        return failure(check, message, f"bring it back, or 'devgw node lost {node.name}' when it is dead for certain")
    if node.conditions:
        return warning(check, f"{node.name}: {words}", "'devgw nodes' shows what is there; mend it on the node")
    if not node.takes_new:
        return warning(check, f"{node.name} gets nothing new", f"'devgw node undrain {node.name}', or the engine's own")
    return ok(check, f"{node.name} answers")
