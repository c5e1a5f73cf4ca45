"""Say in words what a traced step spends its time on: the three largest kinds of work, with their shares."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# The first word that an operation's name contains decides; the order matters.
KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("fused kernels of the compiler", ("triton", "inductor", "compiledfunction", "torch-compiled", "cpp_fused")),
    ("waiting for data", ("dataloader", "pin_memory")),
    (
        "communication between processes",
        ("nccl", "gloo", "c10d", "all_reduce", "allreduce", "all_gather", "reduce_scatter"),
    ),
    ("the optimizer's update", ("optimizer.", "adam", "sgd", "_foreach", "fused_", "muon", "addcdiv")),
    ("convolutions", ("conv", "cudnn", "winograd", "implicit_gemm")),
    ("attention", ("attention", "flash", "sdpa")),
    ("matrix products", ("addmm", "matmul", "bmm", "baddbmm", "aten::mm", "linear", "gemm", "cutlass", "cublas")),
    ("normalisation", ("norm",)),
    ("softmax and losses", ("softmax", "nll_loss", "cross_entropy", "mse_loss", "logsumexp")),
    ("copies between host and device", ("memcpy", "memset")),
    ("copies and layout changes", ("copy_", "contiguous", "clone", "aten::to", "_to_copy", "transpose", "permute")),
    ("embeddings and indexing", ("embedding", "index", "gather", "scatter", "select", "slice")),
    ("pooling and resampling", ("pool", "upsample", "interpolate")),
    ("random numbers", ("dropout", "bernoulli", "rand", "normal_")),
)
OTHER = "elementwise and other operations"


@dataclass(frozen=True)
class Cost:
    """One kind of work: microseconds per step, and the operation that costs most of it."""

    kind: str
    microseconds: float
    share: float
    largest: str


@dataclass(frozen=True)
class Summary:
    """Where the time of a step goes. `where` is the clock: "GPU" for kernels, "CPU" for operations."""

    where: str
    microseconds: float
    costs: tuple[Cost, ...]

    def words(self) -> str:
        """Return one sentence with the three largest costs."""
        if not self.costs:
            return "the trace holds no work"
        parts = [f"{cost.share:.0%} {cost.kind} (most of it {cost.largest})" for cost in self.costs[:3]]
        return f"of {self.microseconds / 1e3:.2f} ms {self.where} time per step: {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "where": self.where,
            "microseconds_per_step": self.microseconds,
            "costs": [vars(cost) for cost in self.costs],
        }


def kind_of(name: str) -> str:
    """Return the kind of work that an operation or kernel is."""
    lowered = name.lower()
    return next((kind for kind, words in KINDS if any(word in lowered for word in words)), OTHER)


def summarise(averages: Iterable[Any], steps: int) -> Summary:
    """Sum torch.profiler's key averages by kind: by kernels where there are any, else by CPU operations."""
    events = list(averages)
    on_device = [(event.key, _device_time(event)) for event in events]
    uses_device = sum(time for _, time in on_device) > 0
    times = on_device if uses_device else [(event.key, float(event.self_cpu_time_total)) for event in events]
    by_kind: dict[str, dict[str, float]] = {}
    for name, time in times:
        # The profiler's own marks have no work of their own.
        if time > 0 and not name.startswith("ProfilerStep"):
            operations = by_kind.setdefault(kind_of(name), {})
            operations[name] = operations.get(name, 0.0) + time
    total = sum(sum(operations.values()) for operations in by_kind.values())
    costs = [
        Cost(
            kind,
            sum(operations.values()) / steps,
            sum(operations.values()) / total,
            max(operations, key=lambda n: operations[n]),
        )
        for kind, operations in by_kind.items()
    ]
    ranked = tuple(sorted(costs, key=lambda cost: -cost.microseconds))
    return Summary("GPU" if uses_device else "CPU", total / steps, ranked)


def _device_time(event: Any) -> float:
    """Kernels only: an operation on the host reports its kernels' time as its own too."""
    is_kernel = "cuda" in str(getattr(event, "device_type", "")).lower()
    return float(getattr(event, "self_device_time_total", 0.0)) if is_kernel else 0.0
