"""Write any state_dict in types that `torch.load(weights_only=True)` reads, and read it back, type for type.

Tensors can be taken out on the way, so that torch.distributed.checkpoint saves them. What cannot be written
is refused by name when it would be saved, not when it is needed.
"""

import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from devgw_runner.errors import TaskError

TAG = "$devgw"
PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size})
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)

# Returns the name under which a tensor is saved elsewhere, or None to leave it where it is.
TakeTensor = Callable[[tuple[Any, ...], Tensor], str | None]


def encode(value: Any, owner: str, take: TakeTensor | None = None) -> Any:
    """Return `value` in plain types; `owner` names it in a refusal.

    Raises:
        TaskError: something in it cannot be saved; it names the place and the type.
    """
    return _encode(value, (), owner, take)


def decode(value: Any, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """Return what `encode` was given, with the tensors that were taken out."""
    if type(value) is list:
        return [decode(part, tensors) for part in value]
    if type(value) is not dict:
        return value
    if TAG not in value:
        return {key: decode(part, tensors) for key, part in value.items()}
    return _decode_tagged(value, tensors)


def _decode_tagged(value: dict[str, Any], tensors: Mapping[str, Tensor] | None) -> Any:
    kind = value[TAG]
    if kind == "tensor":
        return (tensors or {})[value["name"]]
    if kind == "numpy":
        return _decode_numpy(value)
    items = [decode(part, tensors) for part in value["items"]]
    if kind == "deque":
        return deque(items, value["maxlen"])
    return _CONTAINERS[kind](items)


def _encode(value: Any, path: tuple[Any, ...], owner: str, take: TakeTensor | None) -> Any:
    if isinstance(value, Tensor):
        name = take(path, value) if take is not None else None
        return value.detach() if name is None else {TAG: "tensor", "name": name}
    if type(value) in PLAIN:
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _encode_numpy(value, path, owner)
    if type(value) is list:
        return [_encode(part, (*path, i), owner, take) for i, part in enumerate(value)]
    if type(value) is dict:
        return _encode_dict(value, path, owner, take)
    return _encode_container(value, path, owner, take)


def _encode_dict(value: dict[Any, Any], path: tuple[Any, ...], owner: str, take: TakeTensor | None) -> Any:
    # A function is the code's, not the state's: the live object keeps its own.
    kept = {key: part for key, part in value.items() if not isinstance(part, FUNCTIONS)}
    if TAG in kept or not all(type(key) in {str, int, float, bool, type(None)} for key in kept):
        pairs = [_encode(pair, path, owner, take) for pair in kept.items()]
        return {TAG: "dict", "items": pairs}
    return {key: _encode(part, (*path, key), owner, take) for key, part in kept.items()}


def _encode_container(value: Any, path: tuple[Any, ...], owner: str, take: TakeTensor | None) -> Any:
    kind = _KINDS.get(type(value))
    if kind is None:
        raise _refusal(value, path, owner)
    parts = list(value.items()) if isinstance(value, dict) else list(value)
    encoded = {TAG: kind, "items": [_encode(part, (*path, i), owner, take) for i, part in enumerate(parts)]}
    return encoded | {"maxlen": value.maxlen} if isinstance(value, deque) else encoded


def _encode_numpy(value: Any, path: tuple[Any, ...], owner: str) -> dict[str, Any]:
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.names:
        raise _refusal(value, path, owner)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return {
        TAG: "numpy",
        "dtype": array.dtype.str,
        "shape": None if isinstance(value, np.generic) else list(array.shape),
        "order": order,
        "bytes": array.tobytes(order),  # type: ignore[arg-type]  # order is one of its two letters
    }


def _decode_numpy(value: dict[str, Any]) -> Any:
    flat = np.frombuffer(value["bytes"], dtype=np.dtype(value["dtype"]))
    if value["shape"] is None:
        return flat[0]
    return flat.reshape(value["shape"], order=value["order"]).copy(order=value["order"])


def _refusal(value: Any, path: tuple[Any, ...], owner: str) -> TaskError:
    place = ".".join(map(str, path)) or "its top"
    return TaskError(
        f"the state of the {owner} holds a {type(value).__name__} at {place}, which cannot be saved",
        "let its state_dict return numbers, strings, tensors and arrays, in lists, tuples and dicts",
    )


_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "ordered": OrderedDict,
    "counter": lambda items: Counter(dict(items)),
    "defaultdict": lambda items: defaultdict(None, items),
}
_KINDS: dict[type, str] = {
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
    OrderedDict: "ordered",
    Counter: "counter",
    defaultdict: "defaultdict",
    deque: "deque",
}
