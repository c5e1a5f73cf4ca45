"""A host for the doctor to look at: a small tree that stands for `/`, fixed sensors, and the fake engine's words."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import update

from gateway.config import Settings
from gateway.doctor.doctor import Sources
from gateway.doctor.facts import DiskFacts, HostFacts, Space
from gateway.doctor.inside import LIST_COMMAND, Answer
from gateway.engines.diagnostics import EngineFacts, ImageFacts
from gateway.engines.interface import IMAGE_LABEL_PREFIX
from gateway.errors import EngineError, NotFoundError
from gateway.gpus.sampler import Sampler, holders_of
from gateway.gpus.sensors import Measurement, Process, Sensors
from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.database import Database
from gateway.store.leases import LeaseTable
from gateway.store.schema import LEASES
from gateway.store.usage import UsageTable
from tests.fakes.engine import FakeDaemon

DRIVER = "570.124.06"
UUIDS = tuple(GpuUuid(f"GPU-00000000-0000-4000-8000-00000000000{n}") for n in range(2))
_GIB = 2**30
_CONTAINER = "c" * 64


class FixedSensors:
    """Two A100: the first is busy, the second is idle."""

    def read(self) -> Sensors:
        return Sensors(DRIVER, "12.8", tuple(_a100(number) for number in range(2)))


class FakeDiagnostics:
    """The fake daemon, as an engine that devgw would praise."""

    def __init__(self, daemon: FakeDaemon, specs: Path) -> None:
        self._daemon = daemon
        self._specs = specs

    def read(self) -> EngineFacts:
        self._require_reachable()
        refs = [ref for _, ref in self._daemon.containers]
        return EngineFacts(
            name="fake", version="28.3.0", api_version=(1, 51), default_runtime="runc", gpu_injection="cdi",
            cgroup_driver="systemd", cgroup_version="2", has_live_restore=True, remaps_users=False, seccomp="builtin",
            root_directory="/var/lib/fake", is_local=True, cdi_directories=(str(self._specs),),
            marks=dict(zip([_CONTAINER], refs, strict=False)),
        )  # fmt: skip

    def image(self, reference: str) -> ImageFacts:
        self._require_reachable()
        try:
            labels = self._daemon.image(reference).labels
        except KeyError:
            message = f"there is no image {reference} on this host"
            raise NotFoundError("image.not-found", message, "build it") from None
        own = {key.removeprefix(IMAGE_LABEL_PREFIX): value for key, value in labels.items()}
        return ImageFacts(reference, {"devgw-environment": "1.0", "cuda": "12.8", **own}, {})

    def _require_reachable(self) -> None:
        if not self._daemon.is_reachable:
            raise EngineError("engine.unreachable", "the fake engine does not answer", "set is_reachable")


def sources_at(settings: Settings, real: Sources, daemon: FakeDaemon) -> Sources:
    """Return whom the doctor of a site asks, whose host lies in `host` beside its state."""
    root = settings.state_dir.parent / "host"
    furnish(root)
    return replace(
        real,
        engine=lambda: FakeDiagnostics(daemon, root / "etc/cdi"),
        machine=_machine,
        disks=lambda: DiskFacts(kept=1),
        toolkit=str(root / "bin/nvidia-ctk"),
        root=root,
        port_holder=lambda _address, _port: "",
        ask_inside=lambda ref, arguments: _inside(daemon, ref, arguments),
    )


def measure(database_file: Path, minutes: int) -> None:
    """Have the sampler look every 15 s for so long up to just now, as `devgw serve` does; leases are as old."""
    database = Database(f"sqlite:///{database_file}")
    table, steps = LeaseTable(database), minutes * 4
    now = datetime.now(UTC)
    with database.transaction() as connection:
        connection.execute(update(LEASES).values(leased_at=now - timedelta(minutes=minutes)))
    moments = iter([now - timedelta(seconds=15) * (steps - step) for step in range(steps + 1)])
    sampler = Sampler(
        FixedSensors(), lambda: holders_of(table.held()), UsageTable(database), 15, now=lambda: next(moments)
    )
    for _ in range(steps + 1):
        sampler.look()
    database.close()


def furnish(root: Path) -> None:
    """Make the files that the doctor reads, unless they are there."""
    if root.exists():
        return
    files = {
        "proc/driver/nvidia/version": f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {DRIVER}  Tue\n",
        "proc/4711/cgroup": f"0::/system.slice/docker-{_CONTAINER}.scope\n",
        "proc/4711/comm": "python\n",
        "usr/lib64/libcuda.so." + DRIVER: "",
        "bin/nvidia-ctk": "#!/bin/sh\necho NVIDIA Container Toolkit CLI version 1.18.0\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "bin/nvidia-ctk").chmod(0o755)
    write_spec(root, DRIVER)


def write_spec(root: Path, driver: str) -> None:
    """Write the CDI spec as `nvidia-ctk cdi generate` does under a driver."""
    library = f"/usr/lib64/libcuda.so.{driver}"
    mounts = [{"hostPath": library, "containerPath": library}]
    spec = {
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": uuid, "containerEdits": {}} for uuid in UUIDS],
        "containerEdits": {"mounts": mounts},
    }
    (root / "etc/cdi").mkdir(parents=True, exist_ok=True)
    (root / "etc/cdi/nvidia.json").write_text(json.dumps(spec))


def _a100(number: int) -> Measurement:
    return Measurement(
        uuid=UUIDS[number],
        name="NVIDIA A100-SXM4-80GB",
        index=str(number),
        utilisation_percent=(87, 0)[number],
        memory_used_bytes=(52 * _GIB, 0)[number],
        memory_total_bytes=80 * _GIB,
        power_watts=(311.4, 52.0)[number],
        temperature_celsius=(64, 31)[number],
        processes=((Process(4711, 51 * _GIB),), ())[number],
        is_persistent=True,
        mig_mode=(False, False),
        capability=(8, 0),
        brand="nvidia",
    )


def _machine(places: Iterable[tuple[str, Path]]) -> HostFacts:
    spaces = tuple(Space(of, path, 500 * _GIB, 900 * _GIB) for of, path in places)
    return HostFacts(spaces, 512 * _GIB, 524_288, 1024, 4_194_304, clock_is_synchronised=True)


def _inside(daemon: FakeDaemon, ref: EnvironmentRef, arguments: Sequence[str]) -> Answer:
    if not any(owner[1] == ref and one.running for owner, one in daemon.containers.items()):
        raise EngineError("environment.unreachable", f"{ref} does not answer: it is not running")
    if tuple(arguments) == LIST_COMMAND:
        return Answer(0, f"GPU 0: NVIDIA A100-SXM4-80GB (UUID: {UUIDS[0]})\n")
    checks = [
        {"name": "torch", "state": "ok", "message": "torch 2.8.0 (CUDA 12.8)", "fix": ""},
        {"name": "shm", "state": "warning", "message": "only 64 MiB free in /dev/shm", "fix": "use --workers 0"},
    ]
    return Answer(0, json.dumps({"version": 1, "ok": True, "checks": checks}))
