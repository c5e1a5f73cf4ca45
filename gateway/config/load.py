"""Reads settings: flag > `DEVGW_<SECTION>_<KEY>` > `devgw.toml` > default.

For root the places are /etc/devgw, /var/lib/devgw and /run/devgw, otherwise the XDG base directories.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.config.sections import Settings
from gateway.errors import ConfigError


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
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(
            "config.unreadable", f"{file}: {exc}", "mend the file, or remove it for the defaults"
        ) from exc


def _overlay(table: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Lay DEVGW_<SECTION>_<KEY> over the table; return which key came from which variable."""
    sources: dict[str, str] = {}
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for key in kind.model_fields:
                variable = f"DEVGW_{section}_{key}".upper()
                if variable in environ:
                    table.setdefault(section, {})[key] = _value_of(kind, key, environ[variable])
                    sources[f"{section}.{key}"] = variable
    for key in ("database_url", "policy_file"):
        variable = f"DEVGW_{key}".upper()
        if variable in environ:
            table[key] = environ[variable]
            sources[key] = variable
    return sources


def _value_of(section: type[BaseModel], key: str, text: str) -> object:
    annotation = str(section.model_fields[key].annotation)
    if not annotation.startswith("tuple"):
        return text
    separator = ":" if "Path" in annotation else ","  # an IPv6 network has colons of its own
    return [part.strip() for part in text.split(separator) if part.strip()]


def _as_config_error(exc: ValidationError, file: Path, sources: Mapping[str, str]) -> ConfigError:
    first = exc.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    where = sources.get(key, str(file))
    problem = "is not a setting" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return ConfigError(
        "config.invalid", f"{where}: {key}: {problem}", "docs/reference/configuration.md lists every setting"
    )
