"""The search space of a sweep: which settings are tried, between which values. From a YAML file or from flags.

Drawing from it is left to `study`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from devgw_runner.config import TrainConfig
from devgw_runner.config_sources import flag_of
from devgw_runner.errors import UsageError

# What the sweep chooses for each trial itself, and what makes no sense in one.
NOT_TO_TRY = frozenset({"run_name", "checkpoint_dir", "log_dir", "cache_dir", "resume", "explain"})
EXAMPLE = "for example --try learning_rate=1e-4..1e-1:log --try width=16..128:16 --try norm=batch,layer"
Value: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`; whole ones where both ends are written so."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def examples(self) -> list[Value]:
        return [self.low, self.high]

    def to_json(self) -> dict[str, Any]:
        return vars(self)


@dataclass(frozen=True)
class OneOf:
    """Single values."""

    choices: tuple[Value, ...]

    @property
    def examples(self) -> list[Value]:
        return list(self.choices)

    def to_json(self) -> dict[str, Any]:
        return {"choices": list(self.choices)}


Range: TypeAlias = Between | OneOf
Space: TypeAlias = dict[str, Range]


def read_space(file: Path | None, words: Sequence[str], kind: type[TrainConfig]) -> Space:
    """Read the space from a file and from `--try` words, which go over the file's.

    Raises:
        UsageError: it is empty, or a setting or a value in it cannot be; it names the place.
    """
    space: Space = {}
    for name, description in (_read_file(file) if file is not None else {}).items():
        space[str(name).replace("-", "_")] = _from_mapping(f"{file}: {name}", description)
    for word in words:
        name, _, text = word.partition("=")
        space[name.strip().replace("-", "_")] = _from_word(f"--try {word}", text.strip())
    if not space:
        raise UsageError("there is nothing to try", EXAMPLE + ", or --space FILE")
    for name, values in space.items():
        _check_setting(name, values, kind)
    return space


def flags_for(values: Mapping[str, Any]) -> list[str]:
    """Write one trial's values as flags of the task."""
    flags = []
    for name, value in values.items():
        flag = flag_of(name)
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            flags.append(f"{flag}={value!r}" if isinstance(value, float) else f"{flag}={value}")
    return flags


def _read_file(path: Path) -> Mapping[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {(exc.strerror or 'unreadable').lower()}", "--space takes YAML") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise UsageError(
            f"{path} is not YAML: {str(exc).splitlines()[0]}", "one 'name: {low: 1, high: 9}' a line"
        ) from exc
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} holds no settings", "one 'name: {low: 1, high: 9}' a line")
    return content


def _from_mapping(place: str, description: Any) -> Range:
    if isinstance(description, list):
        return _one_of(place, description)
    if (
        isinstance(description, Mapping)
        and set(description) == {"choices"}
        and isinstance(description["choices"], list)
    ):
        return _one_of(place, description["choices"])
    if not isinstance(description, Mapping) or not {"low", "high"} <= set(description) <= {
        "low",
        "high",
        "log",
        "step",
    }:
        raise UsageError(f"{place} is no range", "write {low: 1e-5, high: 1e-1, log: true}, or a list of values")
    log = description.get("log", False)
    if not isinstance(log, bool):
        raise UsageError(f"{place}: log is {log!r}", "log is true or false")
    low, high, step = (_number(place, description.get(word), word) for word in ("low", "high", "step"))
    assert low is not None and high is not None  # noqa: PT018, S101 - both are there, as was asked above
    return _between(place, low, high, step, log=log)


def _from_word(place: str, text: str) -> Range:
    """Read LOW..HIGH[:STEP|:log], or values with commas."""
    if ".." not in text:
        return _one_of(place, [yaml.safe_load(part) if part.strip() else part for part in text.split(",")])
    ends, _, how = text.partition(":")
    low, _, high = ends.partition("..")
    numbers = [_number(place, _parsed(word), word or "an end") for word in (low, high)]
    if numbers[0] is None or numbers[1] is None:
        raise UsageError(f"{place} has no two ends", EXAMPLE)
    step = None if how in {"", "log"} else _number(place, _parsed(how), how)
    return _between(place, numbers[0], numbers[1], step, log=how == "log")


def _parsed(word: str) -> Any:
    """Read a number as Python writes it: YAML takes 1e-4 for a word."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word or None


def _number(place: str, value: Any, word: str) -> float | None:
    value = _parsed(value) if isinstance(value, str) else value
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{place}: {word} is no number", EXAMPLE)
    return value


def _between(place: str, low: float, high: float, step: float | None, *, log: bool) -> Between:
    if low >= high:
        raise UsageError(f"{place}: {low} is not below {high}", "the smaller end comes first")
    if log and low <= 0:
        raise UsageError(f"{place}: a logarithmic range begins above 0", EXAMPLE)
    if step is not None and (step <= 0 or step > high - low or log):
        raise UsageError(f"{place}: the step {step} makes no sense", "a step is above 0, fits, and is not logarithmic")
    if isinstance(low, int) and isinstance(high, int) and step is not None and not isinstance(step, int):
        low = float(low)
    return Between(low, high, log, step)


def _one_of(place: str, values: list[Any]) -> OneOf:
    parsed = [_parsed(value) if isinstance(value, str) and value else value for value in values]
    if len(parsed) < 2 or len({repr(value) for value in parsed}) < len(parsed):
        raise UsageError(f"{place} has no two different values", EXAMPLE)
    for value in parsed:
        if not isinstance(value, str | int | float | bool | None):
            raise UsageError(f"{place}: {value!r} is no plain value", "choices are words, numbers, true or false")
    return OneOf(tuple(parsed))


def _check_setting(name: str, values: Range, kind: type[TrainConfig]) -> None:
    """Refuse what the task has not, and what its settings do not take."""
    if name in NOT_TO_TRY:
        raise UsageError(f"{name} cannot be tried", "the sweep chooses it for each trial")
    if name not in kind.model_fields:
        raise UsageError(f"the task has no setting {name}", f"add it to the task's TrainConfig; {EXAMPLE}")
    for value in values.examples:
        try:
            kind.model_validate({name: value})
        except ValidationError as exc:
            reasons = [str(error["msg"]) for error in exc.errors() if error["loc"][:1] == (name,)]
            if reasons:
                reason = reasons[0].removeprefix("Input ").lower()
                raise UsageError(f"{name} cannot be {value!r}: {reason}", "choose other ends or values") from exc
