"""The group of processes of one run, and what they must agree on.

Starting them is left to `launch`; wrapping the model to `wrapping`.
"""

import gc
import os
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from devgw_runner.config import DEFAULT_TIMEOUT_SECONDS
from devgw_runner.errors import RunnerError, UsageError
from devgw_runner.parallel.waiting import OF_AN_EXCHANGE, Awaited, set_timeout, timeout_error, waited_in_vain
from devgw_runner.switch_watch import SwitchWatch, disagreement


@dataclass(frozen=True)
class World:
    """This process's place in the run."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    local_size: int = 1
    tensor: int = 1  # neighbouring processes that share layers, and see the same samples
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    awaited: Awaited = field(default_factory=Awaited, compare=False)

    @property
    def data_rank(self) -> int:
        """Which share of the samples this process sees."""
        return self.rank // self.tensor

    @property
    def data_size(self) -> int:
        """Into how many shares the samples are divided."""
        return self.size // self.tensor

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        return self.size > 1

    def every(self, succeeded: bool) -> bool:
        """Say whether all processes succeeded."""
        if not self.is_distributed:
            return succeeded
        flag = torch.tensor([1 if succeeded else 0])
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
        return bool(flag.item())

    def total(self, value: float) -> float:
        """Return the sum over all processes of a number on the host."""
        return self.totals([value])[0]

    def totals(self, values: list[float]) -> list[float]:
        """Return the sums over all processes of numbers on the host, in one exchange."""
        if not self.is_distributed:
            return values
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        everyones: list[float] = sums.tolist()
        return everyones

    def have_same(self, number: int) -> bool:
        """Say whether all processes have the same number."""
        if not self.is_distributed:
            return True
        bounds = torch.tensor([number, -number])
        dist.all_reduce(bounds, op=dist.ReduceOp.MAX)
        return int(bounds[0]) == -int(bounds[1])

    def barrier(self) -> None:
        if self.is_distributed:
            self.every(succeeded=True)

    def from_main(self, value: Any) -> Any:
        """Return the main process's value on every process."""
        if not self.is_distributed:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in their order, on each of them; for the start, not for each step."""
        if not self.is_distributed:
            return [value]
        boxes = [[value] for _ in range(self.size)]
        for rank, box in enumerate(boxes):
            dist.broadcast_object_list(box, src=rank, device=torch.device("cpu"))
        return [box[0] for box in boxes]


def join_world(device_kind: str, tensor: int = 1, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> World:
    """Join the group that torchrun's variables describe, or stand alone without them.

    Raises:
        UsageError: the processes cannot be divided into groups of `tensor`.
        GroupTimeoutError: the others did not come in time.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size % tensor:
        raise UsageError(
            f"--tensor-parallel {tensor} does not divide {size} process{'es' if size > 1 else ''}",
            f"devgw-run --nproc {tensor * max(1, size // tensor)} train.py starts as many as it can share",
        )
    if size == 1:
        return World()
    world = World(
        rank=int(os.environ["RANK"]),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        size=size,
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", size)),
        tensor=tensor,
        timeout_seconds=timeout_seconds,
    )
    # gloo beside nccl: flags, async checkpoints and offload need host memory (pytorch/pytorch#148532).
    backend = "cpu:gloo,cuda:nccl" if device_kind == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    except RuntimeError as exc:
        if not waited_in_vain(exc):
            raise
        raise timeout_error(world.rank, timeout_seconds, world.awaited) from exc
    if dist.group.WORLD is not None:  # as it always is behind a start
        set_timeout(dist.group.WORLD, timeout_seconds)
    world.awaited.what = "at the start"
    return world


def leave_world() -> None:
    """Leave the group. Its threads end with what holds it: here the meshes, in `end_group_threads` all else.

    Torch's caches of sharding hold each mesh until the interpreter is gone, and each mesh its groups: a thread of gloo
    that still lets go of a tensor then ends the process by SIGABRT, whatever its exit code was.
    """
    if not dist.is_initialized():
        return
    dist.destroy_process_group()
    for mesh in [each for each in gc.get_objects() if type(each) is DeviceMesh]:
        getattr(mesh, "_pg_registry", {}).clear()  # there is no public way; not each version's meshes hold their groups


def end_group_threads() -> None:
    """Free the model and with it the groups that it was divided among; to be called when nobody uses it any more."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        gc.collect()


LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # gloo's words
FIRST_FAILURE_SECONDS = 20.0


def lost_another_process(exc: BaseException) -> bool:
    """Say whether an exchange failed because another process is gone."""
    return isinstance(exc, OF_AN_EXCHANGE) and any(words in str(exc) for words in LOST_PEER)


def failed_by_another(exc: BaseException) -> bool:
    """Say whether an exchange failed because another process is gone or did not come in time."""
    return waited_in_vain(exc) or lost_another_process(exc)


def others_failure(exc: BaseException, world: World) -> RunnerError:
    """Return what to say of it: that another did not come, or nothing that goes before the other's own words."""
    if waited_in_vain(exc):
        return timeout_error(world.rank, world.timeout_seconds, world.awaited)
    return yield_to_first_failure()


def yield_to_first_failure() -> RunnerError:
    """Wait for the process that failed first to end, so that its words and its exit code are those of the run.

    torchrun ends this process as soon as it sees that; where it does not, return what to say.
    """
    time.sleep(FIRST_FAILURE_SECONDS)
    return RunnerError("another process of this run is gone", "its own error, or the kernel's log, says why")


class StopConsensus:
    """Brings every process to the same decision at the same step: stop, or checkpoint now.

    The exchange of one step is awaited at the next, so its latency hides behind the computation. On the way it
    compares what hooks have switched.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._pending: tuple[dist.Work, torch.Tensor] | None = None
        self._checkpoint_agreed = False
        self._stop_agreed = 0
        self._is_alike = True

    def exchange(self, stop_signal: int, *, checkpoint: bool, switches: SwitchWatch | None = None) -> int:
        """Offer this process's wishes; return the stop signal that all agreed on one step ago, or 0.

        Raises:
            TaskError: what hooks had switched was not the same in all processes one step ago.
        """
        if not self._world.is_distributed:
            self._checkpoint_agreed |= checkpoint
            return stop_signal
        if not self.settle():
            raise disagreement()
        agreed, self._stop_agreed = self._stop_agreed, 0
        digest = switches.digest if switches is not None else 0
        flags = torch.tensor([stop_signal, int(checkpoint), digest, -digest])
        work = dist.all_reduce(flags, op=dist.ReduceOp.MAX, async_op=True)
        self._pending = (work, flags)
        return agreed

    def take_checkpoint(self) -> bool:
        """Say whether a checkpoint was agreed on since the last call."""
        agreed, self._checkpoint_agreed = self._checkpoint_agreed, False
        return agreed

    def settle(self) -> bool:
        """Wait for the last exchange now; say whether what hooks had switched was the same in all processes."""
        if self._pending is not None:
            work, flags = self._pending
            self._pending = None
            work.wait()
            stop_signal, checkpoint, highest, lowest = flags.tolist()
            self._stop_agreed = max(self._stop_agreed, int(stop_signal))
            self._checkpoint_agreed |= bool(checkpoint)
            self._is_alike = highest == -lowest
        return self._is_alike

    def close(self) -> None:
        """Wait for the last exchange, so that the group can be left."""
        self.settle()
