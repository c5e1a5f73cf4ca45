"""What the doctor asks of a host that runs sandboxes: there is no daemon, and nothing of what one tells."""

from pathlib import Path

from gateway.engines.bubblewrap.cgroups import find_cgroups
from gateway.engines.bubblewrap.engine import BubblewrapEngine
from gateway.engines.diagnostics import EngineFacts, ImageFacts
from gateway.engines.interface import IMAGE_LABEL_PREFIX

_LIMITED = ("memory", "swap", "processor time", "processes")


class BubblewrapDiagnostics:
    """Asks the engine itself and this host's control groups."""

    def __init__(self, engine: BubblewrapEngine, gateway_id: str, cdi_directories: tuple[Path, ...]) -> None:
        self._engine = engine
        self._gateway_id = gateway_id
        self._cdi_directories = cdi_directories

    def read(self) -> EngineFacts:
        report = self._engine.report()
        groups = find_cgroups()
        refs = [observed.ref for observed in self._engine.observe_all() if observed.running]
        return EngineFacts(
            name=report.name,
            version=report.version,
            api_version=(0, 0),
            default_runtime="",
            gpu_injection=report.gpu_injection,
            cgroup_driver=groups.kind,
            cgroup_version="1" if groups.kind == "v1" else "2",
            has_live_restore=True,
            remaps_users=False,
            seccomp="builtin",
            root_directory="",
            is_local=True,
            missing_limits=_LIMITED if groups.kind == "none" else (),
            cdi_directories=tuple(map(str, self._cdi_directories)),
            marks={f"devgw-{self._gateway_id}-{ref.user}.{ref.name}": ref for ref in refs},
            is_daemon=False,
        )

    def image(self, reference: str) -> ImageFacts:
        found = self._engine.image(reference)
        own = {
            key.removeprefix(IMAGE_LABEL_PREFIX): value
            for key, value in found.labels.items()
            if key.startswith(IMAGE_LABEL_PREFIX)
        }
        return ImageFacts(reference, own, {})
