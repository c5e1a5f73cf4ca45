"""Settings: flag > `DEVGW_<SECTION>_<KEY>` > `devgw.toml` > default. Says where things are; what is allowed is policy.

For root the places are /etc/devgw, /var/lib/devgw and /run/devgw, otherwise the XDG base directories.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gateway.errors import ConfigError

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]i?B|B)?")
_SIZE_UNITS = {
    "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_DURATION = re.compile(r"(\d+)([smhd])")
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(value: object) -> int:
    """Return bytes from `16GiB`, `500MB` or a number of bytes. Raises: ValueError."""
    if isinstance(value, int):
        return value
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size: write 16GiB, 500MB or a number of bytes")
    return int(float(match["number"]) * _SIZE_UNITS[match["unit"] or "B"])


def parse_duration(value: object) -> int:
    """Return seconds from `90m`, `8h`, `1h30m`, `7d` or a number of seconds. Raises: ValueError."""
    if isinstance(value, int):
        return value
    text = str(value).strip()
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is not a duration: write 90m, 8h, 1h30m or 7d")
    return sum(int(number) * _DURATION_UNITS[unit] for number, unit in parts)


Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
Duration = Annotated[int, BeforeValidator(parse_duration), Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ServerSettings(_Section):
    """The one SSH port and how connections on it are bounded."""

    listen: str = "0.0.0.0"  # noqa: S104 - the product's one port is meant to be reached
    """Address to listen on. Prudent: the address of the network your users come from."""
    port: int = Field(default=2222, ge=1, le=65535)
    """TCP port."""
    public_host: str = ""
    """Host name printed in ssh lines and client configuration; empty: this machine's name."""
    login_grace_seconds: Duration = Field(default=60)
    """Time to finish a login (sshd's LoginGraceTime)."""
    max_auth_tries: int = Field(default=6, ge=1, le=100)
    """Keys one connection may offer (MaxAuthTries)."""
    max_startups: str = Field(default="10:30:100", pattern=r"^\d+:\d+:\d+$")
    """Unauthenticated connections: start:rate:full, random early drop as in sshd (MaxStartups)."""
    per_source_max_startups: int = Field(default=30, ge=1)
    """Unauthenticated connections of one address (PerSourceMaxStartups)."""
    max_sessions: int = Field(default=64, ge=1)
    """Session channels of one connection (MaxSessions). VS Code opens many."""
    max_channels: int = Field(default=512, ge=1)
    """Channels of one connection, forwards included."""
    max_connections_per_user: int = Field(default=32, ge=1)
    """Connections of one user at a time."""
    client_alive_interval_seconds: Duration = Field(default=60)
    """Silence after which the client is asked whether it lives (ClientAliveInterval)."""
    client_alive_count_max: int = Field(default=3, ge=1)
    """Unanswered questions until the connection ends (ClientAliveCountMax)."""
    drain_seconds: Duration = Field(default=30)
    """On SIGTERM: time live sessions are given to end by themselves."""


class EngineSettings(_Section):
    """Which container engine runs the environments."""

    kind: Literal["auto", "docker", "bubblewrap"] = "auto"
    """`auto` takes Docker when it answers, else bubblewrap."""
    docker_url: str = ""
    """Docker's API; empty: DOCKER_HOST, then unix:///var/run/docker.sock. Never taken from the docker CLI's context."""


class EnvironmentSettings(_Section):
    """What an environment is made of when `create` does not say."""

    image: str = "devgw/env:cpu"
    """Image of new environments."""
    memory: Size = Field(default=8 * 2**30)
    """Memory limit, equal to the swap limit."""
    cpus: float = Field(default=4.0, gt=0)
    """CPU limit; lowered to what the host has."""
    pids: int = Field(default=4096, ge=64)
    """Limit on processes and threads."""
    egress: Literal["none", "internet"] = "none"
    """Connections an environment may open to the outside. Prudent: none."""
    read_only_root: bool = True
    """Whether the image's own files are read-only inside. Prudent: true."""
    notebook_port: int = Field(default=8888, ge=1, le=65535)
    """The port on `localhost` that means the notebook when a user forwards it."""
    uid_start: int = Field(default=200000, ge=1000)
    """First uid given to users when the gateway runs as root; a range no person on the host has."""
    start_timeout: Duration = Field(default=120)
    """Time until both sockets must answer."""
    stop_timeout: Duration = Field(default=10)
    """Time between SIGTERM and SIGKILL."""


class GpuSettings(_Section):
    """Where the list of GPUs comes from."""

    inventory: Literal["auto", "nvml", "cdi", "none"] = "auto"
    """`auto` asks NVML and, without a driver, reads CDI specs."""
    cdi_spec_dirs: tuple[Path, ...] = (Path("/etc/cdi"), Path("/var/run/cdi"))
    """Directories with CDI specs; the same ones the engine reads."""


class DatasetSettings(_Section):
    """One read-only dataset."""

    path: Path
    """Directory on the host."""


class Settings(_Section):
    """Everything in devgw.toml, and the four directories."""

    server: ServerSettings = ServerSettings()
    engine: EngineSettings = EngineSettings()
    environments: EnvironmentSettings = EnvironmentSettings()
    gpus: GpuSettings = GpuSettings()
    datasets: dict[str, DatasetSettings] = Field(default_factory=dict)
    config_dir: Path
    state_dir: Path
    run_dir: Path
    cache_dir: Path
    database_url: str = ""
    """SQLAlchemy URL; empty: SQLite in the state directory."""
    policy_file: Path | None = None
    """Policy; empty: policy.toml in the configuration directory, or the shipped default where there is none."""

    @property
    def config_file(self) -> Path:
        return self.config_dir / "devgw.toml"

    @property
    def keys_dir(self) -> Path:
        return self.state_dir / "keys"

    @property
    def journal_dir(self) -> Path:
        return self.state_dir / "journal"

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir / 'devgw.db'}"


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


def loopback_only(address: str) -> bool:
    """Say whether nobody outside this machine can reach the address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


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
    is_list = str(section.model_fields[key].annotation).startswith("tuple")
    return [part for part in text.split(":") if part] if is_list else text


def _as_config_error(exc: ValidationError, file: Path, sources: Mapping[str, str]) -> ConfigError:
    first = exc.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    where = sources.get(key, str(file))
    problem = "is not a setting" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return ConfigError(
        "config.invalid", f"{where}: {key}: {problem}", "docs/reference/configuration.md lists every setting"
    )
