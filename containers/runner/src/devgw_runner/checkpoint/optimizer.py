"""Take an optimizer's state apart for a checkpoint, and put it back with the layouts it had.

torch's own `Optimizer.load_state_dict` casts every state to its parameter's dtype and device; what it changed is
put back afterwards, and what is still not as saved is refused by name.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from devgw_runner.checkpoint.encoding import decode, encode
from devgw_runner.checkpoint.layout import Layout, is_separate
from devgw_runner.errors import CheckpointError

OPTIMIZER_PREFIX = "optim."


def take_apart(optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the state with marks where tensors were, and those tensors by flat name; they are the live ones.

    Tensors that share memory, or are of an unusual kind, stay where they are.
    """
    tree = optimizer.state_dict()
    shared = _shared_storages(tree["state"])
    tensors: dict[str, Tensor] = {}

    def take(path: tuple[Any, ...], tensor: Tensor) -> str | None:
        name = OPTIMIZER_PREFIX + ".".join(map(str, path))
        if name in tensors or not is_separate(tensor) or _storage(tensor) in shared:
            return None
        tensors[name] = tensor
        return name

    skeleton = {name: encode(value, "optimizer") for name, value in tree.items() if name != "state"}
    return {"state": encode(tree["state"], "optimizer", take), **skeleton}, tensors


def put_back(optimizer: Optimizer, saved: dict[str, Any], tensors: dict[str, Tensor], *, same_device: bool) -> None:
    """Load a state that `take_apart` returned; `tensors` are filled and laid out as saved."""
    tree = decode(saved, tensors)
    groups = decode(saved["param_groups"])
    optimizer.load_state_dict(tree)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, values in decode(saved["state"], tensors).items():
        live = parameters[key] if isinstance(key, int) and key < len(parameters) else key
        if live in optimizer.state:
            _reinstate(optimizer.state[live], values, same_device=same_device)
    for group, there in zip(optimizer.param_groups, groups, strict=True):
        _reinstate(group, {name: value for name, value in there.items() if name != "params"}, same_device=same_device)


def check_restored(optimizer: Optimizer, layouts: dict[str, Layout], *, same_device: bool) -> None:
    """Refuse a state that did not come back as it was saved.

    Raises:
        CheckpointError: it names the first tensor, and what differs.
    """
    now = {name: Layout.of(tensor) for name, tensor in take_apart(optimizer)[1].items()}
    for name in sorted(layouts.keys() | now.keys()):
        if not name.startswith(OPTIMIZER_PREFIX):
            continue
        if name not in now or name not in layouts:
            raise refused(name, "it is absent " + ("here" if name in layouts else "there"))
        if difference := layouts[name].difference(now[name], same_device=same_device):
            raise refused(name, difference)


def refused(name: str, difference: str) -> CheckpointError:
    """Name a state that cannot come back as it was saved."""
    return CheckpointError(
        f"{name} cannot be restored as it was saved: {difference}",
        "restore the code that made the checkpoint, or --resume off starts anew",
    )


def fit_to_parameters(optimizer: Optimizer, layouts: dict[str, Layout]) -> dict[str, Layout]:
    """Return the layouts for parameters that lie otherwise now: what has a parameter's shape lies as it does."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    fitted = dict(layouts)
    for name, layout in layouts.items():
        parameter = _owner(name, parameters)
        if parameter is not None and layout.shape == tuple(parameter.shape):
            now = Layout.of(parameter)
            fitted[name] = Layout(now.shape, now.stride, layout.dtype, now.host, now.placements, now.splits)
        elif parameter is not None and layout.placements is not None and not isinstance(parameter, DTensor):
            fitted[name] = Layout(layout.shape, layout.stride, layout.dtype, layout.host)
    return fitted


def layouts_of_version_1(metadata: Metadata) -> dict[str, Layout]:
    """Return what a checkpoint of the first format tells: shape and dtype; strides are then the parameters'."""
    return {
        name: Layout(tuple(entry.size), _contiguous(entry.size), entry.properties.dtype, host=entry.size == ())
        for name, entry in metadata.state_dict_metadata.items()
        if name.startswith(OPTIMIZER_PREFIX) and isinstance(entry, TensorStorageMetadata)
    }


def skeleton_of_version_1(saved: dict[str, Any], layouts: dict[str, Layout]) -> dict[str, Any]:
    """Return the optimizer's part of a trainer file of the first format as `take_apart` returns it."""
    state: dict[int, dict[str, Any]] = {index: dict(values) for index, values in saved["optimizer_values"].items()}
    for name in layouts:
        index, key = name.removeprefix(OPTIMIZER_PREFIX).split(".", 1)
        state.setdefault(int(index), {})[key] = {"$devgw": "tensor", "name": name}
    return {"state": state, "param_groups": saved["param_groups"]}


def _contiguous(size: torch.Size) -> tuple[int, ...]:
    return tuple(torch.empty(size, device="meta").stride())


def _owner(name: str, parameters: list[Tensor]) -> Tensor | None:
    if not name.startswith(OPTIMIZER_PREFIX):
        return None
    index = name.removeprefix(OPTIMIZER_PREFIX).split(".")[0]
    return parameters[int(index)] if index.isdecimal() and int(index) < len(parameters) else None


def _reinstate(live: Any, saved: Any, *, same_device: bool) -> None:
    """Replace in `live` each tensor that a load cast, moved or laid out anew."""
    if isinstance(saved, Mapping) and isinstance(live, dict):
        pairs: list[tuple[Any, Any]] = [(key, value) for key, value in saved.items() if key in live]
    elif isinstance(saved, list) and isinstance(live, list) and len(live) == len(saved):
        pairs = list(enumerate(saved))
    else:
        return
    for key, value in pairs:
        if not isinstance(value, Tensor):
            _reinstate(live[key], value, same_device=same_device)
        elif isinstance(live[key], Tensor):
            there, here = Layout.of(value), Layout.of(live[key])
            if there.difference(here, same_device=same_device):
                live[key] = value if same_device else value.to(live[key].device)


def _shared_storages(state: Any) -> set[int]:
    seen: set[int] = set()
    shared: set[int] = set()
    for tensor in _walk_tensors(state):
        storage = _storage(tensor)
        (shared if storage in seen else seen).add(storage)
    return shared - {0}


def _storage(tensor: Tensor) -> int:
    """Return the address of a plain tensor's memory, 0 for others and for empty ones."""
    plain = type(tensor) is Tensor and tensor.layout is torch.strided
    return tensor.untyped_storage().data_ptr() if plain else 0


def _walk_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _walk_tensors(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _walk_tensors(part)
