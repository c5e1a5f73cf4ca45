"""The base of every table of a policy file: frozen, and unknown keys are errors; what one error can carry."""

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A TOML table. A mistyped key must never read as "no restriction"."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)


class KeyedError(ValueError):
    """A fault that pydantic cannot place by itself, with the dotted key it stands at."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
