"""What the records say of an environment, read as a ObservedEnvironment."""

from dataclasses import replace
from pathlib import Path

from gateway.engines.bubblewrap.cgroups import UNLIMITED
from gateway.engines.bubblewrap.records import Record
from gateway.engines.interface import ObservedEnvironment
from gateway.engines.nodes import this_host
from gateway.engines.out_of_memory import count_out_of_memory, in_words
from gateway.model import EnvironmentSpec

_KILLED = 137


def witness_of(record: Record) -> ObservedEnvironment:
    """Read a record; one without a specification is partial."""
    spec = record.spec()
    if spec is None:
        return unreadable(record, "a directory without a specification")
    running = record.running()
    if running is None:
        return _witness(record, spec)
    if running.supervisor.is_alive():
        detail = out_of_memory(running.cgroups, spec.limits.memory_bytes)
        found = _witness(record, spec, running=True, detail=detail)
        return found if running.cgroups else replace(found, caveats=(UNLIMITED,))
    ended = record.ended()
    if ended is None:
        return _witness(record, spec, exit_code=_KILLED, detail="it was cut off: the host or its supervisor went down")
    return _witness(record, spec, exit_code=ended.exit_code, detail=ended.detail)


def out_of_memory(groups: tuple[Path, ...], memory_bytes: int) -> str:
    """Say whether the kernel killed something at the memory limit; empty when it did not."""
    return in_words(memory_bytes) if count_out_of_memory(groups) else ""


def _witness(
    record: Record, spec: EnvironmentSpec, *, running: bool = False, exit_code: int | None = None, detail: str = ""
) -> ObservedEnvironment:
    return ObservedEnvironment(
        record.ref,
        running=running,
        image=spec.image,
        uid=spec.uid,
        gpus=spec.gpus,
        spec_digest=record.spec_digest(),
        exit_code=exit_code,
        detail=detail,
        node=this_host(),
    )


def unreadable(record: Record, why: str) -> ObservedEnvironment:
    """Return what is there although nothing can be said of it."""
    return ObservedEnvironment(
        record.ref,
        running=False,
        image="",
        uid=-1,
        gpus=(),
        spec_digest="",
        partial=True,
        detail=why,
        node=this_host(),
    )
