"""The Engine without a daemon: each environment is a sandbox made by bwrap, below a supervisor of its own.

See `arguments` for how a sandbox is confined, and `sandbox` for what is in it.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
from functools import cached_property
from pathlib import Path

from gateway.engines.bubblewrap import network
from gateway.engines.bubblewrap.cgroups import Cgroups, find_cgroups
from gateway.engines.bubblewrap.devices import HostDevices
from gateway.engines.bubblewrap.errors import environment_exists, environment_not_found, failed
from gateway.engines.bubblewrap.load import load_of
from gateway.engines.bubblewrap.log import last_lines
from gateway.engines.bubblewrap.network import Stack
from gateway.engines.bubblewrap.observe import unreadable, witness_of
from gateway.engines.bubblewrap.order import Order, give
from gateway.engines.bubblewrap.probe import require_namespaces
from gateway.engines.bubblewrap.process import Process
from gateway.engines.bubblewrap.records import Record, Records
from gateway.engines.bubblewrap.sandbox import sandbox_of
from gateway.engines.bubblewrap.software import PreparedRoots
from gateway.engines.interface import (
    EngineReport,
    Image,
    Load,
    ObservedEnvironment,
    Progress,
    Service,
    ignore_progress,
    named,
)
from gateway.engines.mounts import require_sources
from gateway.engines.nodes import OneNode
from gateway.engines.run_directory import RunDirectory, absent
from gateway.engines.variables import refuse_reserved
from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec

_KILL_SECONDS = 15.0
_LONGEST_DETAIL = 200
_VERSION = re.compile(r"(\d+)\.(\d+)")
_OLDEST = (0, 8)  # --disable-userns


class BubblewrapEngine(OneNode):
    """The sandboxes of one gateway. `directory` is its own; `roots` may be shared by several."""

    name = "bubblewrap"

    def __init__(
        self, directory: Path, gateway_id: str, roots: PreparedRoots, cdi_directories: tuple[Path, ...] = ()
    ) -> None:
        self._records = Records(directory)
        self._gateway_id = gateway_id
        self._roots = roots
        self._devices = HostDevices(cdi_directories)

    def report(self) -> EngineReport:
        _, version = find_bwrap()
        kind, reason = self._devices.kind()
        require_namespaces(find_bwrap()[0], _unprivileged_ids())
        return EngineReport(self.name, version, kind, (reason, self._cgroups.note, network.egress_note()))

    def create(self, spec: EnvironmentSpec, progress: Progress = ignore_progress) -> None:
        bwrap, _ = find_bwrap()
        require_sources(spec)
        refuse_reserved(spec.variables)
        root = self._roots.find(spec.image)
        self._devices.of(spec.gpus)
        _require_processors(spec)
        with self._records.hold(spec.ref) as record:
            if record.spec() is not None:
                raise environment_exists(str(spec.ref))
            if spec.egress != Egress.NONE:
                network.find_stack(spec.ref, spec.egress)
            progress("trying a sandbox")
            require_namespaces(bwrap, _ids(spec))
            progress(f"making a sandbox from {named(spec.image)}")
            record.remove()
            if (place := RunDirectory.of(spec)) is not None:
                place.remove_sockets()
            try:
                record.directory.mkdir(parents=True, mode=0o700)
                if not spec.read_only_root:
                    shutil.copytree(root.tree, record.own_root, symlinks=True)
                record.write_spec(spec)
            except OSError as exc:
                record.remove()
                raise failed(f"create {spec.ref}", str(exc)) from exc

    def start(self, ref: EnvironmentRef) -> None:
        with self._records.hold(ref) as record:
            spec = _found(record)
            if _is_running(record):
                return
            require_sources(spec)
            record.forget_run()
            self._order(record, spec)

    def stop(self, ref: EnvironmentRef, timeout_seconds: float) -> None:
        with self._records.hold(ref) as record:
            _stop(record, timeout_seconds)

    def delete(self, ref: EnvironmentRef) -> None:
        with self._records.hold(ref) as record:
            if record.exists():
                _stop(record, 0)
                record.remove()

    def observe(self, ref: EnvironmentRef) -> ObservedEnvironment | None:
        record = self._records.of(ref)
        return witness_of(record) if record.exists() else None

    def observe_all(self) -> list[ObservedEnvironment]:
        return [_seen(record) for record in self._records.all()]

    def dial(self, ref: EnvironmentRef, service: Service) -> socket.socket:
        place = self._run_directory(ref)
        if place is None:
            raise absent(service)
        return place.dial(service)

    def status(self, ref: EnvironmentRef) -> bytes | None:
        place = self._run_directory(ref)
        return None if place is None else place.status()

    def load(self, ref: EnvironmentRef) -> Load | None:
        try:
            running = self._records.of(ref).running()
        except (OSError, ValueError, KeyError, TypeError):  # a damaged record, which `observe_all` shows
            return None
        return load_of(running.cgroups) if running is not None and running.supervisor.is_alive() else None

    def logs(self, ref: EnvironmentRef, lines: int = 50) -> str:
        record = self._records.of(ref)
        _found(record)
        return last_lines(record.log, lines)

    def image(self, reference: str) -> Image:
        root = self._roots.find(reference)
        return Image(reference, root.digest, root.labels)

    def images(self) -> list[Image]:
        return self._roots.images()

    def close(self) -> None:
        """Nothing is held open: sandboxes go on without the gateway."""

    def _run_directory(self, ref: EnvironmentRef) -> RunDirectory | None:
        try:
            spec = self._records.of(ref).spec()
        except (OSError, ValueError, KeyError, TypeError):  # a damaged record, which `observe_all` shows
            return None
        return None if spec is None else RunDirectory.of(spec)

    @cached_property
    def _cgroups(self) -> Cgroups:
        return find_cgroups()

    def _order(self, record: Record, spec: EnvironmentSpec) -> None:
        """Hand a worked-out sandbox to a supervisor; its limits are there before its first process."""
        root = self._roots.find(spec.image)
        tree = root.tree if spec.read_only_root else record.own_root
        stack = network.find_stack(spec.ref, spec.egress) if spec.egress != Egress.NONE else None
        resolver = _resolver(record, stack) if stack else None
        sandbox = sandbox_of(spec, root, self._devices.of(spec.gpus), tree, resolver)
        unit = f"devgw-{self._gateway_id}-{spec.ref.user}.{spec.ref.name}"
        answer, report = os.pipe()
        order = Order(
            bwrap=find_bwrap()[0],
            sandbox=sandbox,
            memory_bytes=spec.limits.memory_bytes,
            report=report,
            made_groups=self._cgroups.make(unit, spec.limits),
            in_scope=self._cgroups.kind == "systemd",
            ids=_ids(spec),
            groups=spec.groups,
            stack=stack,
        )
        give(order, record.directory, self._cgroups.prefix(unit, spec.limits), answer)


def find_bwrap() -> tuple[str, str]:
    """Return bwrap's path and version. Raises: EngineError `engine.unreachable`, saying what to install."""
    program = shutil.which("bwrap")
    if program is None:
        raise EngineError("engine.unreachable", "bubblewrap is not installed", "'apt-get install bubblewrap'")
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = _VERSION.search(words)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        raise EngineError("engine.unreachable", f"bubblewrap 0.8 or newer is needed; {program} is {words.strip()}", "")
    return program, words.split()[-1]


def _seen(record: Record) -> ObservedEnvironment:
    """Read one record of many; one that is damaged hides no other."""
    try:
        return witness_of(record)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        return unreadable(record, f"its record cannot be read: {type(exc).__name__}: {exc}"[:_LONGEST_DETAIL])


def _stop(record: Record, timeout_seconds: float) -> None:
    """Ask, wait, kill; then wait for the supervisor to write down how it ended."""
    running = record.running()
    if running is None:
        return
    if running.supervisor.is_alive():
        _stop_supervised(running.supervisor, timeout_seconds)
    if not running.first.is_alive():
        return
    running.first.send(signal.SIGKILL)  # its supervisor was killed while it set the sandbox up
    if not running.first.wait(_KILL_SECONDS):
        raise failed(f"stop {record.ref}", f"process {running.first.pid} does not end")


def _stop_supervised(supervisor: Process, timeout_seconds: float) -> None:
    if timeout_seconds > 0:
        supervisor.send(signal.SIGTERM)
        if supervisor.wait(timeout_seconds):
            return
    supervisor.send(signal.SIGUSR1)
    if not supervisor.wait(_KILL_SECONDS):
        supervisor.send(signal.SIGKILL)  # the kernel then kills the sandbox


def _is_running(record: Record) -> bool:
    running = record.running()
    return running is not None and running.supervisor.is_alive()


def _found(record: Record) -> EnvironmentSpec:
    spec = record.spec()
    if spec is None:
        raise environment_not_found(str(record.ref))
    return spec


def _require_processors(spec: EnvironmentSpec) -> None:
    have = os.cpu_count() or 1
    if spec.limits.cpus > have:
        raise EngineError(
            "engine.failed", f"{spec.limits.cpus:g} cpus are more than this host's {have}", f"ask for {have} or fewer"
        )


def _ids(spec: EnvironmentSpec) -> tuple[int, int] | None:
    """Return whom the sandbox's processes are to be; a gateway that is not root can only be itself.

    Raises:
        EngineError: `engine.unconfined`, for an environment that would be root.
    """
    if 0 in {spec.uid, spec.gid}:
        raise EngineError("engine.unconfined", "an environment is never root", "give its user another uid")
    if os.geteuid() == 0:
        return spec.uid, spec.gid
    if (spec.uid, spec.gid) != (os.getuid(), os.getgid()):
        raise EngineError(
            "engine.failed", f"a gateway that is not root cannot run an environment as uid {spec.uid}", "run it as root"
        )
    return None


def _unprivileged_ids() -> tuple[int, int] | None:
    return (65534, 65534) if os.geteuid() == 0 else None


def _resolver(record: Record, stack: Stack) -> Path:
    """Write the resolv.conf by which a sandbox asks its network stack for names."""
    file = record.directory / "resolv.conf"
    file.write_text(f"nameserver {stack.resolver}\n")
    file.chmod(0o644)
    return file
