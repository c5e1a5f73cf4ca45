"""What an inventory found at one moment."""

from dataclasses import dataclass

from gateway.model import Gpu


@dataclass(frozen=True, slots=True)
class Reading:
    """The GPUs that can be leased and, in `notes`, why there are not more.

    `source` is `nvml`, `amd`, `cdi`, `engine` or `none`.
    """

    source: str
    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()
    driver_version: str = ""
    place: str = "this host"
    """Where they are, in words."""
