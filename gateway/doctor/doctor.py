"""The doctor's round: gather, judge, and for one environment ask inside too."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.config import Settings
from gateway.doctor.diagnostics import diagnose
from gateway.doctor.facts import DiskFacts, Facts, HostFacts, Wish
from gateway.doctor.finding import Fact, Finding, Report, Unasked, report_of
from gateway.doctor.gather.machine import machine_facts
from gateway.doctor.gather.nvidia import cdi_facts, driver_facts, gpu_processes, toolkit_facts
from gateway.doctor.gather.service import service_facts
from gateway.doctor.gather.site import port_holder, site_facts
from gateway.doctor.inside import COMMAND, LIST_COMMAND, Answer, judge_inside, judge_visible
from gateway.engines.diagnostics import EngineDiagnostics, EngineFacts, ImageFacts
from gateway.engines.interface import Node
from gateway.errors import DevgwError
from gateway.gpus.sensors import Measuring
from gateway.model import Environment, EnvironmentRef, GpuUuid, Limits


@dataclass(frozen=True, slots=True)
class Sources:
    """Whom the doctor asks. `root` is `/`; the machine is a source of its own because no two are alike."""

    settings: Settings
    engine: Callable[[], EngineDiagnostics]
    sensors: Measuring
    leases: Callable[[], Mapping[GpuUuid, EnvironmentRef]]
    policy_file: Path
    load_policy: Callable[[], object]
    ask_inside: Callable[[EnvironmentRef, Sequence[str]], Answer]
    troubles: Callable[[], tuple[str, ...]] = tuple
    disks: Callable[[], DiskFacts] = DiskFacts
    nodes: Callable[[], tuple[Node, ...]] = tuple
    machine: Callable[[Iterable[tuple[str, Path]]], HostFacts] = machine_facts
    port_holder: Callable[[str, int], str] = port_holder
    toolkit: str = "nvidia-ctk"
    root: Path = Path("/")


class Doctor:
    """Looks at a host, or at a host and one of its environments. Changes nothing."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def look(self, environment: Environment | None = None) -> Report:
        """Return every finding; what cannot be asked is one too."""
        return report_of(self._findings(environment))

    def _findings(self, environment: Environment | None) -> Iterator[Finding]:
        yield from diagnose(self._gather(self._wish(environment)))
        if environment is not None:
            handle = str(environment.ref)
            yield from judge_inside(self._inside(environment, COMMAND), handle)
            if environment.gpus:
                yield judge_visible(self._inside(environment, LIST_COMMAND), environment.gpus, handle)

    def _gather(self, wish: Wish) -> Facts:
        sources, settings = self._sources, self._sources.settings
        engine = _asked(lambda: sources.engine().read())
        sensors = sources.sensors.read()
        return Facts(
            driver=driver_facts(sensors, sources.root),
            toolkit=toolkit_facts(sources.toolkit, sources.root),
            cdi=cdi_facts(self._spec_directories(engine)),
            engine=engine,
            image=self._image(engine, wish.image),
            host=sources.machine(self._places(engine)),
            site=replace(
                site_facts(settings, sources.policy_file, sources.load_policy, sources.port_holder),
                service=service_facts(sources.root),
                troubles=_asked(sources.troubles),
                disks=_asked(sources.disks),
            ),
            wish=wish,
            processes=engine if isinstance(engine, Unasked) else gpu_processes(sensors, engine.marks, sources.root),
            leases=_asked(sources.leases),
            gpus_are_wanted=settings.gpus.inventory != "none",
            nodes=() if isinstance(engine, Unasked) else self._nodes(),
        )

    def _nodes(self) -> tuple[Node, ...]:
        nodes = _asked(self._sources.nodes)
        return () if isinstance(nodes, Unasked) else nodes

    def _wish(self, environment: Environment | None) -> Wish:
        defaults = self._sources.settings.environments
        is_read_only = defaults.read_only_root
        if environment is not None:
            wants_gpu = environment.gpu_request not in {"", "0"}
            return Wish(_image_of(environment), environment.limits, wants_gpu, is_read_only)
        limits = Limits(defaults.memory, defaults.cpus, defaults.pids, shm_bytes=defaults.memory // 2)
        return Wish(defaults.image, limits, read_only_root=is_read_only)

    def _image(self, engine: EngineFacts | Unasked, reference: str) -> ImageFacts | Unasked:
        return engine if isinstance(engine, Unasked) else _asked(lambda: self._sources.engine().image(reference))

    def _inside(self, environment: Environment, arguments: Sequence[str]) -> Answer | Unasked:
        return _asked(lambda: self._sources.ask_inside(environment.ref, arguments))

    def _spec_directories(self, engine: EngineFacts | Unasked) -> Iterable[Path]:
        """Take the directories that the engine reads; the settings' where it says none."""
        if isinstance(engine, EngineFacts) and engine.is_local and engine.cdi_directories:
            return tuple(map(Path, engine.cdi_directories))
        return self._sources.settings.gpus.cdi_spec_dirs

    def _places(self, engine: EngineFacts | Unasked) -> Iterator[tuple[str, Path]]:
        yield "state", self._sources.settings.state_dir
        if isinstance(engine, EngineFacts) and engine.is_local and engine.root_directory:
            yield "engine", Path(engine.root_directory)


def _asked(ask: Callable[[], Fact]) -> Fact | Unasked:
    try:
        return ask()
    except DevgwError as exc:
        return Unasked(exc.message, exc.hint or "")


def _image_of(environment: Environment) -> str:
    """Return a name by which the engine knows the image: of a pin, which is devgw's own way of writing, the digest."""
    return environment.image_digest if "@" in environment.image and environment.image_digest else environment.image
