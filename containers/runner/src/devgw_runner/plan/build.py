"""Make the Plan: call the rules in the order in which they depend on each other.

Finding the facts is left to `measure`; overriding "auto" by a checkpoint's choices to `pin_choices`.
"""

from typing import Any

from devgw_runner.config import TrainConfig
from devgw_runner.plan import numerics, throughput
from devgw_runner.plan.choice import Choice, Plan
from devgw_runner.plan.facts import Facts


def build_plan(config: TrainConfig, facts: Facts, resume_note: str) -> Plan:
    """Decide everything about a run.

    Raises:
        UsageError, PrecisionError: the settings contradict each other or the device.
    """
    parallel = throughput.choose_parallel(config, facts)
    precision = numerics.choose_precision(config, facts)
    batch_size = throughput.choose_batch_size(config, facts)
    micro_batch = throughput.choose_micro_batch(config, facts, batch_size.value)
    accumulates = micro_batch.value < batch_size.value
    return Plan(
        device=throughput.choose_device(config, facts),
        parallel=parallel,
        precision=precision,
        memory_format=numerics.choose_memory_format(config, facts, parallel.value),
        compile=numerics.choose_compile(config, facts),
        graphs=numerics.choose_graphs(config, facts, precision.value, parallel.value, accumulates),
        optimizer=throughput.choose_optimizer(facts),
        batch_size=batch_size,
        micro_batch=micro_batch,
        workers=throughput.choose_workers(config, facts, batch_size.value),
        prefetch=throughput.choose_prefetch(facts),
        resume=Choice("checkpoint" if resume_note else "fresh", resume_note or "no checkpoint to continue"),
    )


def pin_choices(config: TrainConfig, numerics_of_checkpoint: dict[str, Any]) -> TrainConfig:
    """Replace settings left on "auto" by what the resumed checkpoint was made with.

    A resume must compute the same bits although it may measure different times or free memory.
    """
    left_open = {name: value for name, value in numerics_of_checkpoint.items() if getattr(config, name, None) == "auto"}
    return config.model_copy(update=left_open)
