"""What all processes of a run must have in common before they start: settings, and the facts that choices rest on.

Each measures for itself, and each has its own line. A choice that differs (compiled or not, the size of a batch)
would let one wait for an exchange that another never makes.
"""

from dataclasses import replace

from devgw_runner.config import TrainConfig
from devgw_runner.errors import DataError, UsageError
from devgw_runner.parallel.world import World
from devgw_runner.plan.facts import Facts

# Where a node keeps its files, how it loads, and what it tells.
MAY_DIFFER = frozenset(
    {
        *("data_dir", "checkpoint_dir", "log_dir", "cache_dir", "workers", "resume", "explain", "profile"),
        *("csv", "tensorboard", "prometheus", "progress_seconds", "peak_tflops"),
        *("logger", "logger_project", "logger_uri", "logger_secrets"),
    }
)


def require_same_settings(config: TrainConfig, world: World) -> None:
    """Refuse a process that was started with other settings than the first; the task's own may differ.

    Raises:
        UsageError: it names the setting and both values.
    """
    own = {name: value for name, value in config.model_dump(mode="json").items() if name in TrainConfig.model_fields}
    for name, value in world.from_main(own).items():
        if name not in MAY_DIFFER and own[name] != value:
            raise UsageError(
                f"process {world.rank} has {name} {own[name]}, the first one {value}",
                "start the same line on each node",
            )


def agree_on_facts(facts: Facts, world: World) -> Facts:
    """Return what choices may rest on in all processes: the first one's facts, and the least of each device.

    Raises:
        DataError: the processes have data sets of different lengths.
    """
    return common_facts(facts, world.gather(facts)) if world.is_distributed else facts


def common_facts(own: Facts, everyones: list[Facts]) -> Facts:
    """Combine them; how the node loads stays its own: loader processes change no number."""
    first = everyones[0]
    if first.data.length != own.data.length:
        raise DataError(
            f"the data set has {own.data.length} samples in one process, {first.data.length} in the first",
            "let Task.data return the same data set in all processes; the runner deals it out",
        )
    sample_bytes = [facts.bytes_per_sample for facts in everyones if facts.bytes_per_sample is not None]
    return replace(
        first,
        device=replace(
            own.device,
            capability=min(facts.device.capability for facts in everyones),
            memory_bytes=min(facts.device.memory_bytes for facts in everyones),
            multiprocessors=min(facts.device.multiprocessors for facts in everyones),
            is_mig=any(facts.device.is_mig for facts in everyones),
        ),
        data=replace(own.data, varies=any(facts.data.varies for facts in everyones)),
        resources=own.resources,
        local_world=own.local_world,
        has_compiler=all(facts.has_compiler for facts in everyones),
        has_torchao=all(facts.has_torchao for facts in everyones),
        bytes_per_sample=max(sample_bytes) if sample_bytes else None,
    )
