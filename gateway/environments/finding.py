"""What care for an environment finds, for the journal."""

from dataclasses import dataclass

from gateway.model import Environment, EnvironmentRef


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one environment, as a journal code, and what was done."""

    code: str
    ref: EnvironmentRef
    detail: str
    started: Environment | None = None
    """The environment as it was started, where it was."""

    @classmethod
    def of_start(cls, code: str, environment: Environment, detail: str) -> "Finding":
        """Return what is found of an environment that was started just now."""
        return cls(code, environment.ref, detail, environment)
