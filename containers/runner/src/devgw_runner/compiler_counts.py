"""What torch's compiler did: graphs made, where it broke off, and which shapes it knows."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from devgw_runner.batch_tree import walk_leaves

Signature = tuple[tuple[torch.Size, torch.dtype], ...]


@dataclass(frozen=True)
class Compiled:
    """Graphs made, and each reason for a break with its count, in the compiler's own first line."""

    graphs: int = 0
    breaks: tuple[tuple[str, int], ...] = ()

    @property
    def break_count(self) -> int:
        return sum(count for _, count in self.breaks)

    def describe(self) -> str:
        graphs = "1 graph" if self.graphs == 1 else f"{self.graphs} graphs"
        if not self.breaks:
            return f"{graphs}, no break"
        several = "1 break" if self.break_count == 1 else f"{self.break_count} breaks"
        return f"{graphs}, {several}: " + "; ".join(reason for reason, _ in self.breaks)


class CompilerCounts:
    """Counts from where it was made: torch's own counters go on over all runs of a process."""

    def __init__(self) -> None:
        self._graphs = count_graphs()
        self._breaks = _count_breaks()

    def taken(self) -> Compiled:
        """Return what has happened since."""
        return Compiled(count_graphs() - self._graphs, tuple((_count_breaks() - self._breaks).items()))


def count_graphs() -> int:
    """Return how many graphs the compiler has made in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])  # noqa: SLF001 - torch has no public name for it


def _count_breaks() -> Counter[str]:
    """Return the breaks by reason: those that cut a graph, and those that left a whole function to Python."""
    found: Counter[str] = Counter()
    for kind in ("graph_break", "unimplemented"):
        by_line: Counter[str] = Counter()
        for reason, count in torch._dynamo.utils.counters[kind].items():  # noqa: SLF001 - torch has no public name for it
            by_line[str(reason).splitlines()[0].strip()[:200]] += count
        found |= by_line  # the same break may be in both
    return found


class CompiledShapes:
    """Which shapes were compiled, and how often others ran eager because compiling had ended."""

    def __init__(self) -> None:
        self._known: set[Signature] = set()
        self._eager: set[Signature] = set()
        self.is_open = True
        self.eager_parts = 0

    def note(self, batch: object) -> str | None:
        """Count one batch, or part of one; return its shapes where they are the first of their kind to run eager."""
        shapes = signature(batch)
        if shapes in self._known:
            return None
        if self.is_open:
            self._known.add(shapes)
            return None
        self.eager_parts += 1
        if shapes in self._eager:
            return None
        self._eager.add(shapes)
        return ", ".join(str(tuple(shape)) for shape, _ in shapes)


def signature(batch: object) -> Signature:
    """Return what a compiled step is specialised to: every tensor's shape and dtype."""
    return tuple((leaf.shape, leaf.dtype) for leaf in walk_leaves(batch) if isinstance(leaf, Tensor))
