"""The random state of a process: seeding, saving, restoring, and keeping it apart.

Python's, NumPy's and torch's generators (host and device) are covered; others are the task's own.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, on the host and on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - data sets draw from the global generator, so it is the one to keep
    torch.manual_seed(seed)


def make_deterministic() -> None:
    """Ask torch for the same bits every time; an operation that cannot raises."""
    # CUDA >= 10.2 needs a fixed workspace: docs.nvidia.com/cuda/cublas, "Results reproducibility".
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def capture_random_state() -> dict[str, Any]:
    """Return the state of every generator, in types that `torch.load(weights_only=True)` accepts."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state()  # noqa: NPY002 - data sets draw from the global generator, so it is the one to keep
    return {
        "python": [version, list(words), gauss],
        "numpy": [
            str(numpy_state[0]),
            [int(word) for word in numpy_state[1]],
            int(numpy_state[2]),
            int(numpy_state[3]),
            float(numpy_state[4]),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put every generator back to where `capture_random_state` found it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, numpy_words, *rest = state["numpy"]
    np.random.set_state((kind, np.array(numpy_words, dtype=np.uint32), *rest))  # noqa: NPY002 - data sets draw from the global generator, so it is the one to keep
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Leave every generator as it was, whatever the block draws."""
    before = capture_random_state()
    try:
        yield
    finally:
        restore_random_state(before)


@contextmanager
def seeded_for_batch(seed: int) -> Iterator[None]:
    """Give one batch's augmentation its own host randomness, independent of the worker that loads it."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - data sets draw from the global generator, so it is the one to keep
    torch_state = torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - data sets draw from the global generator, so it is the one to keep
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 - data sets draw from the global generator, so it is the one to keep
        torch.set_rng_state(torch_state)
