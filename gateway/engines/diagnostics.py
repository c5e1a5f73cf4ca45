"""What `devgw doctor` asks of an engine: more than running environments needs, and it judges nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.model import EnvironmentRef


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine as it describes itself.

    `gpu_injection` is `cdi`, `runtime-hook` or `none`. `cdi_devices` is None where the engine does not list them.
    `ceilings` are limits it cannot raise. `marks` maps what stands
    in the control groups of an environment's processes to it: container ids, unit names.
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


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image: devgw's labels by their bare name, and its variables."""

    reference: str
    labels: Mapping[str, str]
    variables: Mapping[str, str]
    user: str = ""


class EngineDiagnostics(Protocol):
    """An engine that can be examined. Both calls raise EngineError; `image` also NotFoundError `image.not-found`."""

    def read(self) -> EngineFacts:
        """Describe the engine."""

    def image(self, reference: str) -> ImageFacts:
        """Describe a local image."""
