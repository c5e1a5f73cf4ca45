"""What is known of one GPU at one moment, whoever made it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GpuState:
    """One device; None where the driver does not answer (MIG: utilisation and power)."""

    name: str
    uuid: str
    memory_used_bytes: int
    memory_total_bytes: int
    utilisation_percent: int | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None
    processes: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value is not None}
