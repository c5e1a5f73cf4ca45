"""Find the random generators that a loader keeps for itself, and read and set their states."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

KINDS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
# The parts of torch's DataLoader and of common wrappers, in which a sampler or a data set keeps its generator.
PARTS = ("sampler", "batch_sampler", "dataset", "data", "loader", "datasets")
DEEPEST = 6


def find_generators(loader: object) -> dict[str, Any]:
    """Return the generators in the attributes of `loader` and of its parts, each once, by their place."""
    found: dict[str, Any] = {}
    _search(loader, "", 0, found, set())
    return found


def read_states(loader: object) -> dict[str, Any]:
    """Return the state of each generator; one without, such as the system's, is left out."""
    states = {}
    for place, generator in find_generators(loader).items():
        try:
            states[place] = _read(generator)
        except NotImplementedError:
            continue
    return states


def set_states(loader: object, states: dict[str, Any]) -> None:
    """Set the generators that are still there to what `read_states` returned."""
    for place, generator in find_generators(loader).items():
        if place in states:
            _set(generator, states[place])


def _search(owner: object, place: str, depth: int, found: dict[str, Any], seen: set[int]) -> None:
    if depth > DEEPEST or id(owner) in seen:
        return
    seen.add(id(owner))
    for name, value in _attributes(owner):
        inner = f"{place}.{name}" if place else name
        if isinstance(value, KINDS):
            if all(value is not known for known in found.values()):
                found[inner] = value
        elif name in PARTS or isinstance(owner, list | tuple):
            _search(value, inner, depth + 1, found, seen)


def _attributes(owner: object) -> Iterator[tuple[str, Any]]:
    if isinstance(owner, list | tuple):
        yield from ((str(index), value) for index, value in enumerate(owner[:16]))
    else:
        yield from vars(owner).items() if hasattr(owner, "__dict__") else ()


def _read(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.bit_generator.state


def _set(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state
