"""What the lifecycle of environments is set to, and whom it asks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config import Settings
from gateway.engines.interface import Image
from gateway.environments.disks import Disks
from gateway.environments.locks import EnvironmentLocks
from gateway.environments.open_hosts import OpenHosts
from gateway.environments.shared_volumes import NothingShared, Sharing
from gateway.model import Egress, NodeName, UserName


@dataclass(frozen=True, slots=True)
class LifecycleSettings:
    """Settings the lifecycle needs. Times in seconds."""

    state_dir: Path
    datasets: dict[str, Path]
    ca_line: Callable[[], str]
    read_only_root: bool
    start_timeout: float
    stop_timeout: float
    notebook_port: int = 8888
    open_hosts: Callable[[UserName, Egress], OpenHosts] | None = None
    """Says which hosts outside are open to an environment by name; None: the environment is not told."""
    shared: Sharing = NothingShared()  # noqa: RUF009 - it has no state
    """Says which shared volumes a start gives."""
    shared_locks: EnvironmentLocks | None = None
    """Set where gateways of other hosts act on the same environments."""
    drained: Callable[[], Mapping[NodeName, str]] = dict
    """Returns the nodes that get no new environments, and why."""
    image_of: Callable[[UserName, str], Image] | None = None
    """Says which image a reference leads to now, for this user; None: the engine knows it by that name."""
    disks: Disks | None = None
    """None: those of `state_dir`, which no other process must see."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        ca_line: Callable[[], str],
        open_hosts: Callable[[UserName, Egress], OpenHosts],
        shared: Sharing,
        drained: Callable[[], Mapping[NodeName, str]],
        image_of: Callable[[UserName, str], Image],
        shared_locks: EnvironmentLocks | None,
        disks: Disks | None = None,
    ) -> "LifecycleSettings":
        """Return what the settings say, with what is not a setting."""
        chosen = settings.environments
        return cls(
            state_dir=settings.state_dir,
            datasets={name: dataset.path for name, dataset in settings.datasets.items()},
            ca_line=ca_line,
            read_only_root=chosen.read_only_root,
            start_timeout=chosen.start_timeout,
            stop_timeout=chosen.stop_timeout,
            notebook_port=settings.server.notebook_port,
            open_hosts=open_hosts,
            shared=shared,
            drained=drained,
            image_of=image_of,
            shared_locks=shared_locks,
            disks=disks,
        )
