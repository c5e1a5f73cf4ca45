"""Read a TrainConfig from the command line, the environment and a YAML file.

Precedence: flag, then `DEVGW_TRAIN_<NAME>`, then `--config file.yaml`, then the default.
"""

import argparse
import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from devgw_runner.config import TrainConfig
from devgw_runner.errors import UsageError

ENVIRONMENT_PREFIX = "DEVGW_TRAIN_"
ConfigT = TypeVar("ConfigT", bound=TrainConfig)


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of exiting, so that errors read like all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, "'devgw-run train.py --help' lists every flag")


def read_config(kind: type[ConfigT], arguments: Sequence[str], environment: Mapping[str, str]) -> ConfigT:
    """Build the configuration of a run.

    Raises:
        UsageError: an unknown flag, variable or key, or a value outside its range; it names the source.
    """
    from_flags = _read_flags(kind, arguments)
    config_file = from_flags.pop("config", None) or environment.get(ENVIRONMENT_PREFIX + "CONFIG")
    layers = [
        (f"{config_file}: ", _read_file(kind, Path(config_file)) if config_file else {}),
        (ENVIRONMENT_PREFIX, _read_environment(kind, environment)),
        ("--", from_flags),
    ]
    merged: dict[str, Any] = {}
    source_of: dict[str, str] = {}
    for source, values in layers:
        merged.update(values)
        source_of.update(dict.fromkeys(values, source))
    try:
        return kind.model_validate(merged)
    except ValidationError as exc:
        raise _explain(exc, source_of) from exc


def build_parser(kind: type[TrainConfig]) -> argparse.ArgumentParser:
    """Generate the command line: one flag per field, `--flag/--no-flag` for booleans."""
    parser = _Parser(prog="devgw-run train.py", argument_default=argparse.SUPPRESS, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the settings below")
    for name, field in kind.model_fields.items():
        default = "" if field.default in (None, PydanticUndefined) else f" (default: {field.default})"
        text = f"{field.description or ''}{default}".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, help=text)
        else:
            parser.add_argument(flag_of(name), metavar=_metavar(field.annotation), help=text)
    return parser


def flag_of(field_name: str) -> str:
    return "--" + field_name.replace("_", "-")


def _metavar(annotation: Any) -> str:
    words = sorted(_literal_words(annotation))
    return "{" + ",".join(words) + "}" if words else "VALUE"


def _literal_words(annotation: Any) -> set[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return set(typing.get_args(annotation))
    return {word for part in typing.get_args(annotation) for word in _literal_words(part)}


def _read_flags(kind: type[TrainConfig], arguments: Sequence[str]) -> dict[str, Any]:
    values, unknown = build_parser(kind).parse_known_args(list(arguments))
    if unknown:
        known = ["--config", *map(flag_of, kind.model_fields)]
        raise UsageError(f"unknown flag {unknown[0]}", _suggest(unknown[0].split("=")[0], known))
    return {name: value for name, value in vars(values).items() if value is not None}


def _read_environment(kind: type[TrainConfig], environment: Mapping[str, str]) -> dict[str, str]:
    known = {ENVIRONMENT_PREFIX + name.upper(): name for name in kind.model_fields}
    found = {}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == ENVIRONMENT_PREFIX + "CONFIG":
            continue
        if variable not in known:
            raise UsageError(f"unknown setting {variable} in the environment", _suggest(variable, list(known)))
        found[known[variable]] = value
    return found


def _read_file(kind: type[TrainConfig], path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as exc:
        reason = (exc.strerror or "unreadable").lower()
        raise UsageError(f"cannot read {path}: {reason}", "--config takes a YAML file") from exc
    except yaml.YAMLError as exc:
        first_line = str(exc).splitlines()[0]
        raise UsageError(f"{path} is not YAML: {first_line}", "write one 'name: value' per line") from exc
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds a {type(values).__name__}", "write one 'name: value' per line")
    named = {str(key).replace("-", "_"): value for key, value in values.items()}
    for name in named:
        if name not in kind.model_fields:
            raise UsageError(f"unknown setting {name} in {path}", _suggest(name, list(kind.model_fields)))
    return named


def _suggest(unknown: str, known: list[str]) -> str:
    close = difflib.get_close_matches(unknown, known, n=1)
    return f"did you mean {close[0]}" if close else "'devgw-run train.py --help' lists every flag"


def _explain(exc: ValidationError, source_of: Mapping[str, str]) -> UsageError:
    first = exc.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    reason = _reason(exc, name) if name else str(first["msg"]).removeprefix("Value error, ")
    return UsageError(f"{_spell(name, source_of)}{reason}", "'devgw-run train.py --help' lists the values")


def _spell(name: str, source_of: Mapping[str, str]) -> str:
    if not name:
        return ""
    source = source_of.get(name, "--")
    if source == "--":
        return flag_of(name) + ": "
    spelled = name.upper() if source == ENVIRONMENT_PREFIX else name
    return f"{source}{spelled}: "


def _reason(exc: ValidationError, name: str) -> str:
    reasons = [str(error["msg"]) for error in exc.errors() if error["loc"] and error["loc"][0] == name]
    wanted = " or ".join(reason.removeprefix("Input ").lower() for reason in reasons)
    return f"{exc.errors()[0]['input']!r} {wanted}"
