"""What care for an environment finds, for the journal."""

from dataclasses import dataclass

from gateway.model import Environment, EnvironmentRef


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one environment, as a journal code, and what was done."""

    code: str
    ref: EnvironmentRef
    detail: str
    image: str = ""
    """Where it was started: what it is made from, as its row says, and which image that was."""
    digest: str = ""

    @classmethod
    def of_start(cls, code: str, environment: Environment, detail: str) -> "Finding":
        """Return what is found of an environment that was started just now."""
        return cls(code, environment.ref, detail, environment.image, environment.image_digest)
