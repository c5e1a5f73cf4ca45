"""What `devgw doctor` asks of an engine: more than running environments needs, and it judges nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.model import EnvironmentRef


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What a cluster must have for environments, and what it lacks. Names are the cluster's own.

    `needs_default_class` says that volumes leave their storage class to the cluster; `gpus` counts those of all nodes.
    """

    missing_rights: tuple[str, ...] = ()
    missing_classes: tuple[str, ...] = ()
    needs_default_class: bool = False
    has_default_class: bool = True
    gpu_resource: str = ""
    gpus: int = 0
    accepts_open_network: bool = False
    oldest_version: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine as it describes itself.

    `gpu_injection` is `cdi`, `runtime-hook` or `none`. `cdi_devices` is None where the engine does not list them.
    `ceilings` are limits it cannot raise. `marks` maps what stands
    in the control groups of an environment's processes to it: container ids, unit names. `product` is whose daemon
    answers; one that `is_rootless` runs as an ordinary user, whose id is the same inside where it `keeps_user`.
    """

    name: str
    version: str
    api_version: tuple[int, int]
    default_runtime: str
    gpu_injection: str
    cgroup_driver: str
    cgroup_version: str
    has_live_restore: bool
    remaps_users: bool
    seccomp: str
    root_directory: str
    is_local: bool
    missing_limits: tuple[str, ...] = ()
    cdi_directories: tuple[str, ...] = ()
    cdi_devices: frozenset[str] | None = None
    ceilings: Mapping[str, int] = field(default_factory=dict)
    marks: Mapping[str, EnvironmentRef] = field(default_factory=dict)
    is_daemon: bool = True
    product: str = "Docker"
    is_rootless: bool = False
    keeps_user: bool = False
    cluster: ClusterFacts | None = None
    """None where environments run on one host."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image: devgw's labels by their bare name, and its variables; nothing of either where it `is_elsewhere`."""

    reference: str
    labels: Mapping[str, str]
    variables: Mapping[str, str]
    user: str = ""
    is_elsewhere: bool = False


class EngineDiagnostics(Protocol):
    """An engine that can be examined. Both calls raise EngineError; `image` also NotFoundError `image.not-found`."""

    def read(self) -> EngineFacts:
        """Describe the engine."""

    def image(self, reference: str) -> ImageFacts:
        """Describe a local image."""
