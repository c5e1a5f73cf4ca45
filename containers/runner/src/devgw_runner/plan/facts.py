"""The facts that choices rest on: device, model, data, machine. Tests make them up; `measure` finds them.

Choosing is left to the rules beside it.
"""

from dataclasses import dataclass

from devgw_runner.resources import Resources


@dataclass(frozen=True)
class DeviceFacts:
    """One device as this process sees it; a MIG slice counts as a device of its own size."""

    kind: str  # "cpu" or "cuda"
    name: str = "CPU"
    capability: tuple[int, int] = (0, 0)
    multiprocessors: int = 0
    memory_bytes: int = 0
    is_mig: bool = False
    hip: str = ""  # the version of a ROCm build, which calls its devices cuda
    visible: int = 0  # devices that this process could use

    @property
    def sm(self) -> str:
        if self.hip:
            return f"gfx{self.capability[0]}.{self.capability[1]}"
        return f"SM {self.capability[0]}.{self.capability[1]}"


@dataclass(frozen=True)
class ModelFacts:
    """`linear_shapes` are (in, out) features; bytes as stored."""

    parameters: int
    parameter_bytes: int
    convolutions: int = 0
    keeps_statistics: bool = False  # a forward pass in training changes buffers, as batch norm's does
    linear_shapes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """`length` in samples for a data set, None for a loader of the task's own, whose batches are as they come."""

    length: int | None
    sample_bytes: int = 0
    load_seconds_per_sample: float = 0.0
    varies: bool = False  # batches hold words, objects or tensors of unequal size
    loader_batch: int = 1  # samples in the first batch of the task's own loader
    loader_batches: int | None = None  # None where the loader does not know


@dataclass(frozen=True)
class Facts:
    """All that the rules may look at. `bytes_per_sample` is measured on the device, None where it is not.

    `fitting_samples` is how many fit at once where the first look ran out of memory with more, else None.
    """

    device: DeviceFacts
    model: ModelFacts
    data: DataFacts
    resources: Resources
    world: int = 1
    local_world: int = 1
    has_compiler: bool = True
    has_own_optimizer: bool = False
    has_gradient_hook: bool = False
    has_turns: bool = False
    has_torchao: bool = False
    bytes_per_sample: int | None = None
    eager_seconds_per_sample: float = 0.0
    fitting_samples: int | None = None
