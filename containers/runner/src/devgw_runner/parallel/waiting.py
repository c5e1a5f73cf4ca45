"""How long processes wait for each other, and what to say when one does not come.

gloo ends a wait by an exception. NCCL cannot: it ends the process, without a code of ours, and is given more time, so
that the exchange of the hosts that follows each step is what tells it.
"""

import os
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import DeviceMesh

from devgw_runner.errors import GroupTimeoutError
from devgw_runner.parallel.launcher import find_launcher

NCCL_FACTOR = 2.0
NCCL_SPARE_SECONDS = 60.0
STAGGER_SECONDS = 0.5
MOST_STAGGERED = 20

# gloo's words for a wait, and those of torch's store for a process that never came
TIMED_OUT = re.compile(
    r"Timed out waiting \d+ms for (recv|send) operation|(wait|barrier) timeout after \d+ms|waiting for clients"
    r"|Application timeout caused pair closure|Connect timeout|timed out connecting|socket .{0,200}timed out after"
    r"|client socket has timed out"
)
OF_AN_EXCHANGE = (RuntimeError, CheckpointException)  # the second derives from BaseException
TROUBLED_STATES = {
    "T": "is stopped",
    "t": "is held by a debugger",
    "Z": "has ended",
    "D": "waits for a disk",
}
"""By the letters of proc(5)."""


@dataclass
class Awaited:
    """Where this process may wait for the others just now, in words that follow 'another process'."""

    what: str = "to join the run"


def set_timeout(group: dist.ProcessGroup, seconds: float) -> None:
    """Bound the waits of one group, whichever backends it has."""
    for device in group._device_types:  # noqa: SLF001 - torch has no public name for it
        backend = group._get_backend(device)  # noqa: SLF001 - the same
        patience = seconds if "Gloo" in type(backend).__name__ else seconds * NCCL_FACTOR + NCCL_SPARE_SECONDS
        if hasattr(backend, "_set_default_timeout"):
            backend._set_default_timeout(timedelta(seconds=patience))  # noqa: SLF001 - the same


def set_mesh_timeout(mesh: DeviceMesh, seconds: float) -> None:
    """Bound the waits of a mesh: torch gives its groups the default."""
    for dimension in range(mesh.ndim):
        set_timeout(mesh.get_group(dimension), seconds)


def waited_in_vain(exc: BaseException) -> bool:
    """Say whether an exchange failed because a process did not come in time."""
    return isinstance(exc, OF_AN_EXCHANGE) and TIMED_OUT.search(str(exc)) is not None


def timeout_error(rank: int, seconds: float, awaited: Awaited) -> GroupTimeoutError:
    """Say for what this process waited, and what the system knows of its neighbours.

    Others wait, too: the first of them tells it, and torchrun ends the rest.
    """
    time.sleep(min(rank, MOST_STAGGERED) * STAGGER_SECONDS)
    return GroupTimeoutError(
        "; ".join([f"waited {seconds:g} s for another process {awaited.what}", *troubled_neighbours()]),
        "its last words or the kernel's log say why; --group-timeout-seconds allows more time",
    )


def troubled_neighbours() -> list[str]:
    """Describe each process of this run on this machine that cannot go on."""
    launcher = find_launcher()
    if launcher is None:
        return []
    found = []
    for pid, rank in _ranks_below(launcher.pid):
        if pid != os.getpid() and (words := TROUBLED_STATES.get(_state(pid))):
            found.append(f"process {rank} (pid {pid}) {words}")
    return found


def _ranks_below(pid: int) -> list[tuple[int, str]]:
    """The nearest descendants that have a rank; what they started has it in its environment, too."""
    found: list[tuple[int, str]] = []
    for child in _children(pid):
        rank = _rank_of(child)
        found += [(child, rank)] if rank else _ranks_below(child)
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(word) for task in tasks for word in (task / "children").read_text(encoding="ascii").split()]
    except OSError:  # it ended meanwhile
        return []


def _rank_of(pid: int) -> str:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # another user's
        return ""
    return next((entry[5:].decode() for entry in variables if entry.startswith(b"RANK=")), "")


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]
