"""Rules for how much at once: processes, batch, micro-batch, loader processes, optimizer.

Pure functions of settings and facts, like `numerics` beside it.
"""

from devgw_runner.config import TrainConfig
from devgw_runner.errors import TaskError, UsageError
from devgw_runner.plan.choice import Choice
from devgw_runner.plan.facts import Facts

CPU_BATCH = 32
MEMORY_SHARE = 0.8  # the rest is for fragmentation and for graphs, which keep a pool of their own
LARGEST_AUTO_BATCH = 4096
SHM_SHARE = 0.5
PREFETCHED_BATCHES = 2
QUICK_BATCH_SECONDS = 0.002  # a batch that loads faster costs less than handing it between processes
# Adam keeps two fp32 moments and a gradient beside each parameter.
STATE_BYTES_PER_PARAMETER_BYTE = 4


def choose_device(config: TrainConfig, facts: Facts) -> Choice[str]:
    """Choose where to compute; `facts.device` was found under the same setting."""
    if facts.device.kind == "cpu":
        asked = config.device == "cpu"
        return Choice("cpu", "asked for" if asked else "no CUDA device is visible")
    if facts.device.hip:
        return Choice("cuda", f"{facts.device.name} (ROCm, HIP {facts.device.hip})")
    slice_note = ", a MIG slice" if facts.device.is_mig else ""
    return Choice("cuda", f"{facts.device.name} ({facts.device.sm}{slice_note})")


def choose_parallel(config: TrainConfig, facts: Facts) -> Choice[str]:
    """Choose how processes share the work.

    Raises:
        UsageError: FSDP or DDP was asked for with one process, or offload without FSDP.
    """
    if config.cpu_offload and config.parallel not in {"auto", "fsdp"}:
        raise UsageError("--cpu-offload needs --parallel fsdp", "drop one of the two")
    if config.cpu_offload and facts.device.kind == "cpu":
        raise UsageError("--cpu-offload needs a GPU to offload from", "drop --cpu-offload")
    if facts.world == 1:
        if config.parallel in {"ddp", "fsdp"}:
            raise UsageError(
                f"--parallel {config.parallel} needs several processes",
                "devgw-run --nproc 2 train.py starts two",
            )
        spare = facts.device.visible - 1
        unused = f"; {spare} more visible, 'devgw-run --nproc {spare + 1}' uses them" if spare > 0 else ""
        return Choice("single", f"one process{unused}")
    if config.tensor_parallel > 1:
        if config.parallel not in {"auto", "fsdp"}:
            raise UsageError(f"--tensor-parallel needs --parallel fsdp, not {config.parallel}", "drop one of the two")
        groups = facts.world // config.tensor_parallel
        return Choice("fsdp", f"{config.tensor_parallel} processes share each layer, {groups} divide the data")
    if config.parallel == "single":
        raise UsageError(f"--parallel single, but {facts.world} processes were started", "drop one of the two")
    if config.parallel != "auto":
        return Choice(config.parallel, "asked for")
    return _automatic_parallel(config, facts)


def _automatic_parallel(config: TrainConfig, facts: Facts) -> Choice[str]:
    if config.cpu_offload:
        return Choice("fsdp", "--cpu-offload is FSDP2's")
    needed = facts.model.parameter_bytes * STATE_BYTES_PER_PARAMETER_BYTE
    memory = facts.device.memory_bytes
    if facts.device.kind == "cuda" and needed > memory * MEMORY_SHARE / 2:
        return Choice("fsdp", f"parameters, gradients and moments take {_gib(needed)} of {_gib(memory)} per device")
    return Choice("ddp", f"{facts.world} processes, and the model's state fits into each")


def choose_batch_size(config: TrainConfig, facts: Facts) -> Choice[int]:
    """Choose the samples per optimizer step and process."""
    if facts.data.length is None:
        made = facts.data.loader_batch
        asked = config.batch_size
        unheard = "" if asked in {"auto", made} else f"; --batch-size {asked} does not change them"
        return Choice(made, f"the task's own loader makes the batches{unheard}")
    if config.batch_size != "auto":
        return Choice(config.batch_size, "asked for")
    share = max(1, facts.data.length // facts.world)
    if facts.bytes_per_sample is None:
        size = min(CPU_BATCH, share)
        return Choice(size, "a CPU has no device memory to fill" if size == CPU_BATCH else "all the data there is")
    size = min(fitting_batch(facts), share, LARGEST_AUTO_BATCH)
    return Choice(
        size,
        f"measured {facts.bytes_per_sample / 2**20:.1f} MiB per sample, "
        f"{MEMORY_SHARE:.0%} of {_gib(facts.device.memory_bytes)} after the model's state",
    )


def fitting_batch(facts: Facts) -> int:
    """Return the largest batch that memory holds, a multiple of 8 when above 8."""
    state = facts.model.parameter_bytes * STATE_BYTES_PER_PARAMETER_BYTE
    free = facts.device.memory_bytes * MEMORY_SHARE - state
    size = int(free // max(1, facts.bytes_per_sample or 1))
    return max(1, size if size < 8 else size // 8 * 8)


def choose_micro_batch(config: TrainConfig, facts: Facts, batch_size: int) -> Choice[int]:
    """Choose the samples per forward pass; fewer than the batch accumulate gradients."""
    tried = facts.fitting_samples
    if config.micro_batch != "auto" and (tried is None or config.micro_batch <= tried):
        return Choice(min(config.micro_batch, batch_size), "asked for")
    if tried is not None:
        return Choice(min(tried, batch_size), f"the first look ran out of memory with more than {tried} at once")
    if facts.bytes_per_sample is None or fitting_batch(facts) >= batch_size:
        return Choice(batch_size, "the whole batch at once")
    parts = -(-batch_size // fitting_batch(facts))
    return Choice(-(-batch_size // parts), f"the batch does not fit at once; {parts} parts accumulate")


def count_samples(config: TrainConfig, facts: Facts, batch_size: int) -> int:
    """Return how many samples a process of the whole run will see, 0 where nothing says it."""
    if config.steps is not None:
        return config.steps * batch_size
    if facts.data.length is None:
        return config.epochs * (facts.data.loader_batches or 0) * batch_size
    return config.epochs * facts.data.length // facts.world


def choose_workers(config: TrainConfig, facts: Facts, batch_size: int) -> Choice[int]:
    """Choose the loader processes of each training process."""
    if config.workers != "auto":
        return Choice(config.workers, "asked for")
    if facts.data.length is None:
        return Choice(0, "the task's own loader decides")
    seconds = facts.data.load_seconds_per_sample * batch_size
    if seconds < QUICK_BATCH_SECONDS:
        return Choice(0, f"a batch loads in {seconds * 1e3:.1f} ms, quicker than between processes")
    by_cpu = facts.resources.cpus // facts.local_world - 1
    batch_bytes = max(1, facts.data.sample_bytes * batch_size) * PREFETCHED_BATCHES
    by_shm = int(facts.resources.shm_bytes * SHM_SHARE // facts.local_world // batch_bytes)
    workers = max(0, min(by_cpu, by_shm))
    limit = "/dev/shm" if by_shm < by_cpu else f"{facts.resources.cpus} CPUs"  # noqa: S108 - the kernel's shared-memory mount, nothing is created there
    return Choice(workers, f"a batch loads in {seconds * 1e3:.0f} ms; limited by {limit}")


def choose_optimizer(facts: Facts) -> Choice[str]:
    if facts.has_own_optimizer:
        return Choice("task", "the task brings its own")
    return Choice("adamw-fused", "one kernel updates all parameters")


def choose_prefetch(facts: Facts) -> Choice[str]:
    if facts.device.kind == "cpu":
        return Choice("off", "no copy to a device")
    if facts.data.length is None:
        return Choice("off", "the task's own loader remembers its position")
    return Choice("one batch", "copied on a side stream from pinned memory while the step before it runs")


def count_steps(config: TrainConfig, batches_per_epoch: int | None) -> int:
    """Return the optimizer steps of the whole run.

    Raises:
        TaskError: neither --steps nor the data says where the run ends.
    """
    if config.steps is not None:
        return config.steps
    if batches_per_epoch is None:
        raise TaskError("the data has no length, so epochs have no end", "give --steps")
    return config.epochs * batches_per_epoch


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
