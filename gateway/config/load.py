"""Reads settings: flag > `DEVGW_<SECTION>_<KEY>` > `devgw.toml` > default.

For root the places are /etc/devgw, /var/lib/devgw and /run/devgw, otherwise the XDG base directories.
"""

import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.config.sections import Settings
from gateway.errors import ConfigError
from policies.source import syntax_fault

_MEND = "mend the file, or remove it for the defaults"


def default_directories(environ: Mapping[str, str], uid: int) -> dict[str, Path]:
    """Return config, state, run and cache directory, as DEVGW_*_DIR, root's places or the XDG base directories say."""
    home = Path(environ.get("HOME") or "/")
    if uid == 0:
        places = {
            "config_dir": Path("/etc/devgw"),
            "state_dir": Path("/var/lib/devgw"),
            "run_dir": Path("/run/devgw"),
            "cache_dir": Path("/var/cache/devgw"),
        }
    else:
        state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "devgw"
        places = {
            "config_dir": Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "devgw",
            "state_dir": state,
            "run_dir": Path(environ.get("XDG_RUNTIME_DIR") or state / "run") / "devgw",
            "cache_dir": Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "devgw",
        }
    overrides = {name: environ.get(f"DEVGW_{name}".upper()) for name in places}
    return {name: Path(overrides[name] or place) for name, place in places.items()}


def load_settings(environ: Mapping[str, str] | None = None, *, uid: int | None = None) -> Settings:
    """Read devgw.toml, lay DEVGW_* over it and check the result.

    Raises:
        ConfigError: `config.unreadable` or `config.invalid`; the message names the file or variable and the key.
    """
    environ = os.environ if environ is None else environ
    directories = default_directories(environ, os.getuid() if uid is None else uid)
    file = directories["config_dir"] / "devgw.toml"
    table = _read_table(file)
    sources = _overlay(table, environ)
    table.update({name: str(path) for name, path in directories.items()})
    try:
        return Settings.model_validate(table)
    except ValidationError as exc:
        raise _as_config_error(exc, file, sources) from exc


def _read_table(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
        return tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as exc:
        line, said = syntax_fault(text, exc)
        raise ConfigError("config.unreadable", f"{file}:{line}: {said}", _MEND) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError("config.unreadable", f"{file}: {exc}", _MEND) from exc


def _overlay(table: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Lay DEVGW_<SECTION>_<KEY> over the table; return which key came from which variable."""
    sources: dict[str, str] = {}
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for key in kind.model_fields:
                variable = f"DEVGW_{section}_{key}".upper()
                if variable in environ and isinstance(values := table.setdefault(section, {}), dict):
                    values[key] = _value_of(kind, key, environ[variable], variable)
                    sources[f"{section}.{key}"] = variable
    for key in ("database_url", "policy_file"):
        variable = f"DEVGW_{key}".upper()
        if variable in environ:
            table[key] = environ[variable]
            sources[key] = variable
    return sources


def _value_of(section: type[BaseModel], key: str, text: str, variable: str) -> object:
    """Return a variable's value, split where the setting is a list (docs/reference/configuration.md says how)."""
    annotation = str(section.model_fields[key].annotation)
    if not annotation.startswith("tuple"):
        return text
    if text.lstrip().startswith("["):
        return _array_of(text, variable)
    if annotation == "tuple[str, ...]" and re.search(r"\s", text.strip()):
        return _words_of(text, variable)
    # a path may hold a comma and a space, and an IPv6 network has colons of its own
    separators = ":" if "Path" in annotation else r"[,\s]" if "IPv6" in annotation else r"[,:\s]"
    return [part.strip() for part in re.split(separators, text) if part.strip()]


def _array_of(text: str, variable: str) -> object:
    try:
        return tomllib.loads(f"list = {text}")["list"]
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(
            "config.invalid", f"{variable}: this begins like a TOML array and is none", 'write it as ["one", "two"]'
        ) from exc


def _words_of(text: str, variable: str) -> list[str]:
    """Split a command as a shell would."""
    try:
        return shlex.split(text)
    except ValueError as exc:
        raise ConfigError("config.invalid", f"{variable}: {str(exc).lower()}", "quote words as in a shell") from exc


def _as_config_error(exc: ValidationError, file: Path, sources: Mapping[str, str]) -> ConfigError:
    first = exc.errors()[0]
    parts = [str(part) for part in first["loc"]]
    key = ".".join(parts)
    problem = "is not a setting" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return ConfigError(
        "config.invalid",
        f"{_source_of(parts, sources) or file}: {key}: {problem}",
        "docs/reference/configuration.md lists every setting",
    )


def _source_of(parts: Sequence[str], sources: Mapping[str, str]) -> str | None:
    """Return the variable that a fault comes from, which may lie deep in its value; None is the file."""
    for size in range(len(parts), 0, -1):
        if variable := sources.get(".".join(parts[:size])):
            return variable
    return None
