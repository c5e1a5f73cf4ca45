"""A choice with its reason, and the Plan that holds them all.

Making choices is left to the rules; carrying them out to `build`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Choice(Generic[T]):
    """What was chosen and why, in words for the user."""

    value: T
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything that was decided about one run."""

    device: Choice[str]
    parallel: Choice[str]
    precision: Choice[str]
    memory_format: Choice[str]
    compile: Choice[str]
    graphs: Choice[str]
    optimizer: Choice[str]
    batch_size: Choice[int]
    micro_batch: Choice[int]
    workers: Choice[int]
    prefetch: Choice[str]
    resume: Choice[str]

    def choices(self) -> dict[str, Choice[Any]]:
        """Return the choices by name, in the order they were made."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def explain(self) -> str:
        """Return one line per choice: name, value, reason."""
        rows = [(name, str(choice.value), choice.reason) for name, choice in self.choices().items()]
        left = max(len(f"{name}={value}") for name, value, _ in rows)
        return "\n".join(f"{f'{name}={value}':<{left}}  {reason}" for name, value, reason in rows)

    def to_json(self) -> dict[str, Any]:
        """Return the stable object that plan.json holds."""
        choices = {name: {"value": choice.value, "reason": choice.reason} for name, choice in self.choices().items()}
        return {"version": 1, "choices": choices}

    def numerics(self) -> dict[str, Any]:
        """Return the choices that decide the bits of the result; a resume takes them over."""
        names = ("precision", "memory_format", "compile", "batch_size", "micro_batch")
        return {name: getattr(self, name).value for name in names}
