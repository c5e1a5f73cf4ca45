"""Rules for how numbers are computed: precision, layout, compilation, graphs.

Each rule is a pure function of settings and facts, so that plans for any device are testable here.
"""

from devgw_runner.config import TrainConfig
from devgw_runner.errors import PrecisionError
from devgw_runner.plan.choice import Choice
from devgw_runner.plan.facts import Facts

FP8_CAPABILITY = (8, 9)
BF16_CAPABILITY = (8, 0)
TF32_CAPABILITY = (8, 0)
FP16_CAPABILITY = (7, 0)
# Below this, casting costs more than the faster product saves: pytorch/ao#572, #2262.
FP8_SMALLEST_GEMM = 4096
# On a CPU a cold compilation costs 10 to 30 s; the gain is worth it only in runs well above that.
CPU_COMPILE_WORTH_SECONDS = 600.0


def choose_precision(config: TrainConfig, facts: Facts) -> Choice[str]:
    """Choose the arithmetic.

    Raises:
        PrecisionError: the device lacks what was asked for.
    """
    if config.precision == "auto":
        return _automatic_precision(config, facts)
    _require_precision(config.precision, facts)
    if config.precision == "fp8" and not fp8_layers(facts):
        largest = max(facts.model.linear_shapes, key=min, default=(0, 0))
        return Choice(
            "bf16",
            f"fp8 was asked for, but no linear layer gains: the largest is {largest[0]}x{largest[1]}, "
            f"both sides must be multiples of 16 and at least {FP8_SMALLEST_GEMM}",
        )
    return Choice(config.precision, "asked for")


def _automatic_precision(  # noqa: PLR0911 - one line per reason reads best
    config: TrainConfig, facts: Facts
) -> Choice[str]:
    device = facts.device
    if device.kind == "cpu":
        return Choice("fp32", "a CPU computes fp32 exactly and most gain nothing from less")
    if device.hip:
        if _amd_has("bf16", device.capability):
            return Choice("bf16", f"{device.sm} multiplies bf16 in its matrix cores and needs no loss scaling")
        return Choice("fp32", f"{device.sm} has no matrix cores that training could use")
    if device.capability >= BF16_CAPABILITY:
        return Choice("bf16", f"{device.sm} multiplies bf16 in its tensor cores and needs no loss scaling")
    if device.capability >= FP16_CAPABILITY and not config.deterministic:
        return Choice("fp16", f"{device.sm} has fp16 tensor cores but no bf16; a loss scaler guards the range")
    if device.capability >= FP16_CAPABILITY:
        return Choice("fp32", f"{device.sm} has no bf16, and deterministic mode leaves fp16's loss scaler out")
    return Choice("fp32", f"{device.sm} has no tensor cores that training could use")


def _require_precision(precision: str, facts: Facts) -> None:
    device = facts.device
    needed = {
        "fp8": FP8_CAPABILITY,
        "tf32": TF32_CAPABILITY,
        "fp16": FP16_CAPABILITY,
        "bf16": BF16_CAPABILITY,
    }
    if device.hip and not _amd_has(precision, device.capability):
        raise PrecisionError(
            f"precision {precision} is not in the matrix cores of {device.name} ({device.sm})",
            "use --precision auto, which takes the best that the device has",
        )
    on_cpu = device.kind == "cpu" and precision in {"fp8", "tf32", "fp16"}
    too_old = device.kind == "cuda" and not device.hip and device.capability < needed.get(precision, (0, 0))
    if on_cpu or too_old:
        has = "a CPU" if on_cpu else f"{device.name} ({device.sm})"
        major, minor = needed[precision]
        raise PrecisionError(
            f"precision {precision} needs a GPU of SM {major}.{minor} or newer, this is {has}",
            "use --precision auto, which takes the best that the device has",
        )
    if precision == "fp8" and not facts.has_torchao:
        raise PrecisionError("precision fp8 needs torchao", "pip install 'devgw-runner[fp8]'")


def _amd_has(precision: str, architecture: tuple[int, int]) -> bool:
    """Say whether AMD's matrix cores multiply it: by torch's ROCm build 9.0 is CDNA to CDNA 2, 9.4 CDNA 3, 12 RDNA 4.

    Source: rocm.docs.amd.com, "Data types and precision support".
    """
    if precision == "fp8":
        return (9, 4) <= architecture < (10, 0) or architecture >= (12, 0)
    if precision == "tf32":
        return architecture == (9, 4)
    return precision not in {"fp16", "bf16"} or (9, 0) <= architecture < (10, 0) or architecture >= (11, 0)


def fp8_layers(facts: Facts) -> list[tuple[int, int]]:
    """Return the linear shapes that are large enough and aligned for fp8."""
    return [shape for shape in facts.model.linear_shapes if fp8_pays(*shape)]


def fp8_pays(in_features: int, out_features: int) -> bool:
    """Say whether an fp8 product of this size gains: aligned to 16 and large on both sides."""
    aligned = in_features % 16 == 0 and out_features % 16 == 0
    return aligned and min(in_features, out_features) >= FP8_SMALLEST_GEMM


def choose_memory_format(config: TrainConfig, facts: Facts, parallel: str) -> Choice[str]:
    """Choose the layout of 4-D tensors."""
    if parallel == "fsdp":
        return Choice("contiguous", "FSDP2 shards contiguous parameters only")
    if config.memory_format != "auto":
        return Choice(config.memory_format, "asked for")
    if facts.model.convolutions == 0:
        return Choice("contiguous", "the model has no convolution")
    count = facts.model.convolutions
    return Choice("channels_last", f"{count} convolutions; their fast kernels read channels last")


def choose_compile(  # noqa: PLR0911 - one line per reason reads best
    config: TrainConfig, facts: Facts, samples: int
) -> Choice[str]:
    """Choose whether torch.compile is tried, for a run of so many samples; the ladder decides whether it stays."""
    if config.compile != "auto":
        return Choice(config.compile, "asked for")
    if config.tensor_parallel > 1:
        return Choice("off", "processes exchange parts of each layer; --compile default tries")
    if facts.has_turns:
        return Choice("off", "losses take turns, and the parity gate compares the first only; --compile default tries")
    if config.activation_checkpointing != "off" and facts.model.keeps_statistics:
        return Choice("off", "compiled, a repeated forward pass would move batch norm's statistics twice")
    if facts.data.varies:
        return Choice("off", "batches hold words, objects or unequal sizes, and each would compile anew")
    if not facts.has_compiler:
        return Choice("off", "no C++ compiler was found, and generated code needs one")
    if facts.device.kind == "cuda":
        return Choice("default", "fuses what is between matrix products; autotuning stays opt-in (--compile max)")
    if config.deterministic:
        return Choice("off", "a CPU run in deterministic mode: a choice by measurement could differ next time")
    seconds = facts.eager_seconds_per_sample * samples
    if seconds < CPU_COMPILE_WORTH_SECONDS:
        return Choice("off", f"about {seconds:.0f} s of CPU work; compiling would cost more than it saves")
    return Choice("default", f"about {seconds:.0f} s of CPU work repay the seconds of compiling")


def choose_graphs(config: TrainConfig, facts: Facts, precision: str, parallel: str, accumulates: bool) -> Choice[str]:
    """Choose whether whole-step CUDA graphs are out, measured ("auto") or wanted ("on")."""
    obstacle = _graph_obstacle(config, facts, precision, parallel, accumulates)
    if obstacle:
        return Choice("off", obstacle)
    if config.graphs == "auto":
        return Choice("auto", "decided after warm-up: captured if the host launches slower than the GPU computes")
    return Choice(config.graphs, "asked for")


def _graph_obstacle(  # noqa: PLR0911 - one line per obstacle reads best
    config: TrainConfig, facts: Facts, precision: str, parallel: str, accumulates: bool
) -> str:
    if facts.device.kind != "cuda":
        return "CUDA graphs need a CUDA device"
    if parallel != "single":
        return f"{parallel} communicates inside the step"
    if accumulates:
        return "gradient accumulation inside graphs can go wrong silently (pytorch/pytorch#96693)"
    if precision == "fp16":
        return "fp16's loss scaler decides on the host after each step"
    if config.deterministic:
        return "deterministic mode runs every step on the same rung"
    if config.last_batch == "eager" or facts.data.length is None or facts.data.varies:
        return "batches may differ in size"
    if config.nan == "skip":
        return "--nan skip decides on the host after each step"
    if facts.has_own_optimizer:
        return "the task's own optimizer may not be capturable"
    if facts.has_gradient_hook:
        return "the task looks at the gradients on the host before each update"
    return ""
