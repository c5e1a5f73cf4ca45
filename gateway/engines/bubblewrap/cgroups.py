"""Limits on memory, processor time and processes: in cgroups, by whichever way this host gives.

Tried in order: a scope of systemd's, a delegated part of cgroup v2, cgroup v1 as root. Where a host gives none,
the report says so.
"""

import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import EngineError
from gateway.model import Limits

_MOUNT = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 100_000
_V1 = ("memory", "cpu", "pids")
_ACCOUNT = "cpuacct"
"""Of v1; mounted with `cpu` or apart. It limits nothing, and tells what was used."""
_REMOVE_SECONDS = 5.0
_POLL_SECONDS = 0.02
UNLIMITED = (
    "this host gives no cgroup: limits on memory, processors and processes are NOT enforced; run under systemd with "
    "a user session, delegate a cgroup, or run as root"
)


@dataclass(frozen=True, slots=True)
class Cgroups:
    """How one host limits. `kind` is `systemd`, `v2`, `v1` or `none`; `parent` is where v2 groups are made."""

    kind: str
    note: str
    parent: Path | None = None
    places: tuple[tuple[str, Path], ...] = ()

    def prefix(self, unit: str, limits: Limits) -> list[str]:
        """Return what the supervisor's command line starts with."""
        if self.kind != "systemd":
            return []
        whose = [] if os.geteuid() == 0 else ["--user"]
        properties = {
            "MemoryMax": str(limits.memory_bytes),
            "MemorySwapMax": "0",
            "CPUQuota": f"{math.ceil(limits.cpus * 100)}%",
            "TasksMax": str(limits.pids),
            "Delegate": "no",
        }
        options = [f"--property={name}={value}" for name, value in properties.items()]
        return ["systemd-run", *whose, "--scope", "--quiet", "--collect", f"--unit={unit}", *options, "--"]

    def make(self, unit: str, limits: Limits) -> tuple[Path, ...]:
        """Make the groups of one environment and set their limits. Raises: EngineError `engine.failed`."""
        try:
            if self.kind == "v2" and self.parent is not None:
                return (_make(self.parent / unit, _v2_limits(limits)),)
            if self.kind == "v1":
                return tuple(_make(place / "devgw" / unit, _v1_limits(name, limits)) for name, place in self.places)
        except OSError as exc:
            raise EngineError(
                "engine.failed", f"cannot set limits: {exc}", "'devgw doctor' looks for the cause"
            ) from exc
        return ()


def find_cgroups(mount: Path = _MOUNT) -> Cgroups:
    """Look at what this host gives."""
    if _has_systemd():
        return Cgroups("systemd", "limits by scopes of systemd's")
    if parent := _delegated(mount):
        return Cgroups("v2", f"limits by the delegated cgroup {parent}", parent)
    places = tuple((name, place) for name in _V1 if (place := _v1_place(mount, name)) is not None)
    if os.geteuid() == 0 and len(places) == len(_V1):
        account = _v1_place(mount, _ACCOUNT)
        is_apart = account is not None and not any(account.samefile(place) for _, place in places)
        apart = ((_ACCOUNT, account),) if account is not None and is_apart else ()
        return Cgroups("v1", "limits by cgroup v1", places=places + apart)
    return Cgroups("none", UNLIMITED)


def own_group(mount: Path = _MOUNT) -> tuple[Path, ...]:
    """Return this process's cgroup in v2: that of the scope systemd made for it."""
    path = _own_paths().get("")
    return () if path is None else (mount / path.lstrip("/"),)


def join(groups: tuple[Path, ...]) -> None:
    """Put this process, and so whatever it starts, under the limits."""
    for group in groups:
        (group / "cgroup.procs").write_text("0")


def remove(groups: tuple[Path, ...]) -> None:
    """Remove groups whose last process has just ended; the kernel takes a moment to notice."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    for group in groups:
        while group.is_dir():
            try:
                group.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    return
                time.sleep(_POLL_SECONDS)


def _make(group: Path, limits: dict[str, str]) -> Path:
    group.mkdir(parents=True, exist_ok=True)
    for name, value in limits.items():
        if (group / name).exists():
            (group / name).write_text(value)
    return group


def _v2_limits(limits: Limits) -> dict[str, str]:
    return {
        "memory.max": str(limits.memory_bytes),
        "memory.swap.max": "0",
        "cpu.max": f"{round(limits.cpus * _PERIOD_MICROSECONDS)} {_PERIOD_MICROSECONDS}",
        "pids.max": str(limits.pids),
    }


def _v1_limits(name: str, limits: Limits) -> dict[str, str]:
    both = str(limits.memory_bytes)
    return {
        "memory": {"memory.limit_in_bytes": both, "memory.memsw.limit_in_bytes": both},
        "cpu": {
            "cpu.cfs_period_us": str(_PERIOD_MICROSECONDS),
            "cpu.cfs_quota_us": str(round(limits.cpus * _PERIOD_MICROSECONDS)),
        },
        "pids": {"pids.max": str(limits.pids)},
        _ACCOUNT: {},
    }[name]


def _has_systemd() -> bool:
    """Say whether systemd runs and would make a scope for this user."""
    if shutil.which("systemd-run") is None or not Path("/run/systemd/system").is_dir():
        return False
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return os.geteuid() == 0 or (bool(runtime) and (Path(runtime) / "systemd" / "private").exists())


def _delegated(mount: Path) -> Path | None:
    """Return our own cgroup's parent, or the group itself, where groups with all three controllers can be made."""
    path = _own_paths().get("")
    if path is None or not (mount / "cgroup.controllers").exists():
        return None
    own = mount / path.lstrip("/")
    for candidate in (own.parent, own):
        switch = candidate / "cgroup.subtree_control"
        if candidate.is_relative_to(mount) and os.access(switch, os.W_OK) and os.access(candidate, os.W_OK):
            try:
                switch.write_text("+memory +cpu +pids")
            except OSError:
                continue
            return candidate
    return None


def _v1_place(mount: Path, name: str) -> Path | None:
    path = _own_paths().get(name)
    if path is None:
        return None
    place = mount / name / path.lstrip("/")
    return place if (place / "cgroup.procs").exists() else None


def _own_paths() -> dict[str, str]:
    """Read /proc/self/cgroup: a path for each v1 controller, and under the empty name that of v2 (cgroups(7))."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        found.update(dict.fromkeys(names.split(","), path))
    return found
