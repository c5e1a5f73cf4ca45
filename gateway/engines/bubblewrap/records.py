"""What the engine remembers on disk, one directory for each environment: the second observed beside the store.

A directory without `spec.json` is what an interrupted create or delete left.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.engines.bubblewrap.errors import failed
from gateway.engines.bubblewrap.process import Process
from gateway.engines.digest import digest_of
from gateway.errors import UsageError
from gateway.model import (
    Egress,
    EnvironmentRef,
    EnvironmentSpec,
    GpuUuid,
    Limits,
    Mount,
    parse_environment_name,
    parse_user_name,
)
from gateway.removal import remove_tree


@dataclass(frozen=True, slots=True)
class Running:
    """A started environment: its supervisor, the process that is 1 inside, and the cgroups its processes are in."""

    supervisor: Process
    first: Process
    cgroups: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """How an environment ended."""

    exit_code: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """The files of one environment."""

    ref: EnvironmentRef
    directory: Path

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def own_root(self) -> Path:
        """The environment's own copy of its image's small files, where its root is writable."""
        return self.directory / "root"

    def exists(self) -> bool:
        return self.directory.is_dir()

    def spec(self) -> EnvironmentSpec | None:
        """Return what it was made from; None when it was never finished."""
        found = read_json(self.directory / "spec.json")
        return None if found is None else _spec_of(self.ref, found["spec"])

    def spec_digest(self) -> str:
        found = read_json(self.directory / "spec.json")
        return "" if found is None else str(found["digest"])

    def write_spec(self, spec: EnvironmentSpec) -> None:
        """Finish a create."""
        write_json(self.directory / "spec.json", {"version": 1, "digest": digest_of(spec), "spec": asdict(spec)})

    def running(self) -> Running | None:
        """Return who supervised it last, alive or not."""
        found = read_json(self.directory / "process.json")
        if found is None:
            return None
        return Running(
            Process(**found["supervisor"]), Process(**found["first"]), tuple(Path(path) for path in found["cgroups"])
        )

    def write_running(self, running: Running) -> None:
        write_json(self.directory / "process.json", asdict(running))

    def ended(self) -> Ended | None:
        found = read_json(self.directory / "exit.json")
        return None if found is None else Ended(**found)

    def write_ended(self, ended: Ended) -> None:
        write_json(self.directory / "exit.json", asdict(ended))

    def forget_run(self) -> None:
        """Forget the last start; the log stays."""
        for name in ("process.json", "exit.json"):
            (self.directory / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it all; the specification first, so that what is left of a remove cut off is seen to be partial.

        Raises:
            EngineError: `engine.failed`, when something is left.
        """
        try:
            (self.directory / "spec.json").unlink(missing_ok=True)
            remove_tree(self.directory)
        except OSError as exc:
            raise failed(f"remove {exc.filename or self.directory}", exc.strerror or str(exc)) from exc


class Records:
    """Every environment of one gateway. No name has a dot (`model.NAME_PATTERN`), so one between the parts is safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def of(self, ref: EnvironmentRef) -> Record:
        return Record(ref, self._directory / "environments" / f"{ref.user}.{ref.name}")

    def all(self) -> list[Record]:
        """Return what is there, half-made ones included."""
        found = sorted((self._directory / "environments").glob("*.*"))
        refs = [ref_of(path.name) for path in found]
        return [Record(ref, path) for ref, path in zip(refs, found, strict=True) if ref is not None]

    @contextmanager
    def hold(self, ref: EnvironmentRef) -> Iterator[Record]:
        """Keep every other process from making, starting, stopping or deleting this environment meanwhile."""
        locks = self._directory / "locks"
        locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (locks / f"{ref.user}.{ref.name}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.of(ref)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a file that is written whole or not at all; None when it is not there."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file whole, by rename."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps(content, default=str))
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def ref_of(name: str) -> EnvironmentRef | None:
    """Read a directory's name; None for anything that no record is called."""
    user, _, environment = name.partition(".")
    try:
        return EnvironmentRef(parse_user_name(user), parse_environment_name(environment))
    except UsageError:
        return None


def _spec_of(ref: EnvironmentRef, found: dict[str, Any]) -> EnvironmentSpec:
    return EnvironmentSpec(
        ref=ref,
        uid=found["uid"],
        gid=found["gid"],
        image=found["image"],
        limits=Limits(**found["limits"]),
        mounts=tuple(Mount(Path(one["source"]), one["target"], one["read_only"]) for one in found["mounts"]),
        variables=found["variables"],
        gpus=tuple(GpuUuid(gpu) for gpu in found["gpus"]),
        egress=Egress(found["egress"]),
        read_only_root=found["read_only_root"],
        groups=tuple(found.get("groups", ())),  # an older version wrote none
    )
