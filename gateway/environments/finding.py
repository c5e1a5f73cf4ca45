"""What care for an environment finds, for the journal."""

from dataclasses import dataclass

from gateway.model import EnvironmentRef


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one environment, as a journal code, and what was done."""

    code: str
    ref: EnvironmentRef
    detail: str
