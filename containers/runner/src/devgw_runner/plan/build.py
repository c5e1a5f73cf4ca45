"""Make the Plan: call the rules in the order in which they depend on each other.

Finding the facts is left to `measure`; overriding "auto" by a checkpoint's choices to `pin_choices`.
"""

from dataclasses import replace
from typing import Any

from devgw_runner.config import TrainConfig
from devgw_runner.errors import PrecisionError
from devgw_runner.plan import numerics, throughput
from devgw_runner.plan.choice import Choice, Plan
from devgw_runner.plan.facts import Facts

PINNED = "as in the checkpoint: a resume must compute the same bits"


def build_plan(config: TrainConfig, facts: Facts, resume_note: str, pinned: frozenset[str] = frozenset()) -> Plan:
    """Decide everything about a run; `pinned` names the settings that the checkpoint decides.

    Raises:
        UsageError, PrecisionError: the settings contradict each other or the device.
    """
    plan = _choose_everything(config, facts, resume_note, pinned)
    kept = {
        name: Choice(choice.value, PINNED)
        for name, choice in plan.choices().items()
        if name in pinned and choice.value == getattr(config, name)
    }
    return replace(plan, **kept)


def _choose_everything(config: TrainConfig, facts: Facts, resume_note: str, pinned: frozenset[str]) -> Plan:
    parallel = throughput.choose_parallel(config, facts)
    precision = _choose_precision(config, facts, pinned)
    batch_size = throughput.choose_batch_size(config, facts)
    micro_batch = throughput.choose_micro_batch(config, facts, batch_size.value)
    accumulates = micro_batch.value < batch_size.value
    return Plan(
        device=throughput.choose_device(config, facts),
        parallel=parallel,
        precision=precision,
        memory_format=numerics.choose_memory_format(config, facts, parallel.value),
        compile=numerics.choose_compile(config, facts, throughput.count_samples(config, facts, batch_size.value)),
        graphs=numerics.choose_graphs(config, facts, precision.value, parallel.value, accumulates),
        optimizer=throughput.choose_optimizer(facts),
        batch_size=batch_size,
        micro_batch=micro_batch,
        workers=throughput.choose_workers(config, facts, batch_size.value),
        prefetch=throughput.choose_prefetch(facts),
        resume=Choice("checkpoint" if resume_note else "fresh", resume_note or "no checkpoint to continue"),
    )


def _choose_precision(config: TrainConfig, facts: Facts, pinned: frozenset[str]) -> Choice[str]:
    try:
        return numerics.choose_precision(config, facts)
    except PrecisionError as exc:
        if "precision" not in pinned:
            raise
        best = numerics.choose_precision(config.model_copy(update={"precision": "auto"}), facts)
        raise PrecisionError(
            f"the checkpoint was made in {config.precision}, which this device lacks: {facts.device.name}",
            f"--precision {best.value} goes on from it, but not bit for bit; --resume off starts anew",
        ) from exc


def pinned_settings(config: TrainConfig, numerics_of_checkpoint: dict[str, Any]) -> frozenset[str]:
    """Return the names of the settings left on "auto" that the checkpoint decides."""
    return frozenset(name for name in numerics_of_checkpoint if getattr(config, name, None) == "auto")


def pin_choices(config: TrainConfig, numerics_of_checkpoint: dict[str, Any]) -> TrainConfig:
    """Replace settings left on "auto" by what the resumed checkpoint was made with.

    A resume must compute the same bits although it may measure different times or free memory.
    """
    pinned = pinned_settings(config, numerics_of_checkpoint)
    return config.model_copy(update={name: numerics_of_checkpoint[name] for name in pinned})
