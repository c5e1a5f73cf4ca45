"""What stands inside a batch: nested containers of any kind, tensors, and things that are no tensors.

Tuples, lists, dicts, mappings such as Hugging Face's BatchEncoding, dataclasses, and objects that move
themselves by `.to(device)`, such as a PyTorch Geometric Batch. What they mean is left to the task.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from itertools import pairwise
from typing import Any

from torch import Tensor

from devgw_runner.errors import DataError

Mapped = Callable[[Any], Any]
PLAIN = str | bytes | int | float | bool | None
HINT = "each tensor's first dimension counts the samples, or define Task.samples"


def walk_leaves(batch: object) -> Iterator[object]:
    """Yield what stands inside nested containers, in order."""
    if isinstance(batch, Mapping | tuple | list) or _is_plain_dataclass(batch):
        for member in members_of(batch):
            yield from walk_leaves(member)
    else:
        yield batch


def map_leaves(batch: Any, change: Mapped) -> Any:  # noqa: PLR0911 - one line per kind of container reads best
    """Return a batch of the same shape and kinds, each leaf replaced by what `change` makes of it."""
    if type(batch) is dict:
        return {key: map_leaves(value, change) for key, value in batch.items()}
    if isinstance(batch, MutableMapping):
        changed = copy.copy(batch)  # keeps the class, and what it holds beside its items
        for key in list(batch):
            changed[key] = map_leaves(batch[key], change)
        return changed
    if isinstance(batch, Mapping):
        return {key: map_leaves(value, change) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_leaves(value, change) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_leaves(value, change) for value in batch)
    if _is_plain_dataclass(batch):
        changed = copy.copy(batch)
        for part in dataclasses.fields(batch):
            object.__setattr__(changed, part.name, map_leaves(getattr(batch, part.name), change))
        return changed
    return change(batch)


def moves_itself(leaf: object) -> bool:
    """Say whether a leaf that is no tensor has a `.to(device)` of its own."""
    return not isinstance(leaf, Tensor | type) and callable(getattr(leaf, "to", None))


def count_samples(batch: Any) -> int:
    """Return how many samples a batch holds.

    In this order: the length of a list of samples; the first dimension that the tensors share; `num_graphs` or
    `batch_size` of an object; the length that lists with one member for each sample share.

    Raises:
        DataError: none of these is there; the task can say it by `samples`.
    """
    if (quickly := _count_plain(batch)) is not None:
        return quickly
    if _is_list_of_samples(batch):
        return len(batch)
    tensors, lists = _sort_members(batch)
    sizes = sorted({tensor.shape[0] for tensor in tensors})
    lengths = {len(members) for members in lists}
    said = _said_by_an_object(batch)
    if len(sizes) > 1 and said is None:
        raise DataError(f"the tensors of a batch disagree on its size: {sizes}", HINT)
    if len(sizes) == 1:
        count = sizes[0]
    elif said is not None:
        count = said
    elif len(lengths) == 1:
        count = lengths.pop()
    else:
        raise DataError(f"a batch holds no samples that can be counted: {describe(batch)}", HINT)
    if count == 0:
        raise DataError("a batch holds no samples", HINT)
    return count


def _count_plain(batch: Any) -> int | None:
    """Count the usual batch, tensors in one tuple, list or dict, without a walk: it is asked for at each step."""
    members = batch.values() if type(batch) is dict else batch if type(batch) in {tuple, list} else (batch,)
    sizes = {member.shape[0] if isinstance(member, Tensor) and member.dim() else None for member in members}
    count = sizes.pop() if len(sizes) == 1 else None
    return count or None


def split_batch(batch: Any, micro_batch: int, samples: int) -> list[Any]:
    """Cut a batch of `samples` into micro-batches, as even as can be; a batch that fits stays whole.

    Even parts leave no last one of a single sample, which batch norm would refuse.

    Raises:
        DataError: a part of it cannot be cut, such as a batch of graphs.
    """
    if samples <= micro_batch:
        return [batch]
    parts = -(-samples // micro_batch)
    small, larger = divmod(samples, parts)
    bounds = [number * small + min(number, larger) for number in range(parts + 1)]
    return [take_samples(batch, range(begin, end), samples) for begin, end in pairwise(bounds)]


def take_samples(batch: Any, wanted: range, samples: int) -> Any:
    """Return the batch with the samples `wanted` only; an index past the end starts again at the first.

    Raises:
        DataError: a part of it cannot be cut.
    """
    if _is_list_of_samples(batch) or (isinstance(batch, list | tuple) and _is_ragged(batch, samples)):
        return type(batch)(batch[index % samples] for index in wanted)
    if isinstance(batch, Tensor):
        return _take_rows(batch, wanted, samples)
    if isinstance(batch, PLAIN):
        return batch  # the same for all samples
    if isinstance(batch, Mapping | tuple | list) or _is_plain_dataclass(batch):
        return _with_members(batch, lambda member: take_samples(member, wanted, samples))
    raise DataError(
        f"a {type(batch).__name__} in a batch cannot be cut into micro-batches",
        "choose --micro-batch as large as --batch-size",
    )


def is_uniform(batch: Any) -> bool:
    """Say whether batches like this have one shape each time: tensors only, that share their first dimension."""
    tensors, lists = _sort_members(batch)
    if lists or _is_list_of_samples(batch) or not all(isinstance(leaf, Tensor) for leaf in walk_leaves(batch)):
        return False
    return len({tensor.shape[0] for tensor in tensors}) == 1


def describe(batch: object) -> str:
    """Return a batch's kinds and shapes in one line."""
    parts = []
    for leaf in walk_leaves(batch):
        parts.append(f"tensor {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else type(leaf).__name__)
        if len(parts) == 4:
            parts.append("…")
            break
    return f"{type(batch).__name__} of {', '.join(parts) or 'nothing'}"


def _sort_members(batch: Any) -> tuple[list[Tensor], list[list[Any]]]:
    """Return the tensors that hold all samples, and the lists that hold one thing for each sample."""
    tensors: list[Tensor] = []
    lists: list[list[Any]] = []
    undecided: list[list[Any]] = []

    def visit(part: Any) -> None:
        if isinstance(part, Tensor):
            tensors.extend([part] if part.dim() else [])
        elif isinstance(part, list) and part and part is not batch and _holds_one_each(part):
            lists.append(part)
        elif isinstance(part, list) and part and part is not batch and all(isinstance(x, Tensor) for x in part):
            undecided.append(part)
        else:
            for member in members_of(part):
                visit(member)

    visit(batch)
    for part in undecided:
        # Images of one size beside a list of targets: one each, as the list beside them says.
        beside = {len(members) for members in lists} == {len(part)} and part[0].shape[0] != len(part)
        if beside:
            lists.append(part)
        else:
            tensors.extend(part)
    return tensors, lists


def members_of(part: Any) -> list[Any]:
    """Return the direct members of a container; nothing for a leaf."""
    if isinstance(part, Mapping):
        return list(part.values())
    if isinstance(part, tuple | list):
        return list(part)
    if _is_plain_dataclass(part):
        return [getattr(part, name.name) for name in dataclasses.fields(part)]
    return []


def _holds_one_each(members: list[Any]) -> bool:
    """Say whether a list can only hold one thing for each sample: mappings, words, or tensors of unequal size."""
    if any(not isinstance(member, Tensor) for member in members):
        return all(isinstance(member, Mapping | PLAIN) for member in members)
    return len({member.shape[0] if member.dim() else None for member in members}) > 1 or members[0].dim() == 0


def _said_by_an_object(batch: object) -> int | None:
    """PyTorch Geometric says `num_graphs`, DGL `batch_size`."""
    for leaf in walk_leaves(batch):
        for word in ("num_graphs", "batch_size"):
            said = getattr(leaf, word, None)
            if isinstance(said, int) and not isinstance(said, bool):
                return said
    return None


def _is_list_of_samples(batch: object) -> bool:
    """Say whether a batch is a list whose members are whole samples of their own: tuples or mappings."""
    if not isinstance(batch, list) or not batch:
        return False
    kinds = {type(member) for member in batch}
    return len(kinds) == 1 and isinstance(batch[0], tuple | Mapping)


def _is_ragged(member: Any, samples: int) -> bool:
    """Say whether this list holds one thing for each sample, rather than tensors with all samples."""
    if len(member) != samples or hasattr(member, "_fields"):
        return False
    whole = [isinstance(part, Tensor) and part.dim() > 0 and part.shape[0] == samples for part in member]
    return not all(whole)


def _take_rows(tensor: Tensor, wanted: range, samples: int) -> Tensor:
    if tensor.dim() == 0:
        return tensor
    if tensor.shape[0] != samples:
        raise DataError(
            f"a tensor of shape {tuple(tensor.shape)} in a batch of {samples} cannot be cut into micro-batches",
            "choose --micro-batch as large as --batch-size",
        )
    if wanted.stop <= samples:
        return tensor[wanted.start : wanted.stop]
    return tensor[[index % samples for index in wanted]]


def _with_members(batch: Any, change: Mapped) -> Any:
    """Change each direct member and keep the container's kind."""
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(change, batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map(change, batch))
    if type(batch) is dict or (isinstance(batch, Mapping) and not isinstance(batch, MutableMapping)):
        return {key: change(value) for key, value in batch.items()}
    changed = copy.copy(batch)
    if isinstance(batch, MutableMapping):
        for key in list(batch):
            changed[key] = change(batch[key])
    else:
        for part in dataclasses.fields(batch):
            object.__setattr__(changed, part.name, change(getattr(batch, part.name)))
    return changed


def _is_plain_dataclass(batch: object) -> bool:
    return dataclasses.is_dataclass(batch) and not isinstance(batch, type) and not moves_itself(batch)
