"""Blocks for OpenSSH's ssh_config(5), and the file that a client's own configuration includes. Prints nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import StoreError
from gateway.model import DEFAULT_ENVIRONMENT, EnvironmentRef

INCLUDED = "devgw.conf"
_HEAD = "# Written by 'devgw config-ssh --write'; changes here are lost.\n"
_INCLUDE = f"Include {INCLUDED}\n"


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where the client finds the gateway, and which of its keys to offer."""

    host: str
    port: int
    notebook_port: int
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A file that would be, or was, written."""

    path: Path
    text: str
    is_new: bool


def alias_of(ref: EnvironmentRef) -> str:
    """Return the Host name of an environment: `devgw-alice`, `devgw-alice.proj` (a dot, for names hold hyphens)."""
    return f"devgw-{ref.user}" + ("" if ref.name == DEFAULT_ENVIRONMENT else f".{ref.name}")


def block(gateway: Gateway, ref: EnvironmentRef) -> str:
    """Return one environment's Host block."""
    lines = [
        f"Host {alias_of(ref)}",
        f"    HostName {gateway.host}",
        f"    Port {gateway.port}",
        f"    User {ref}",
        *([f"    IdentityFile {gateway.identity}"] if gateway.identity else []),
        "    IdentitiesOnly yes",
        f"    LocalForward {gateway.notebook_port} localhost:{gateway.notebook_port}",
        "    ServerAliveInterval 30",
        "    ServerAliveCountMax 4",
    ]
    return "".join(f"{line}\n" for line in lines)


def blocks(gateway: Gateway, refs: Iterable[EnvironmentRef]) -> str:
    """Return the blocks of several environments."""
    return "\n".join(block(gateway, ref) for ref in refs)


def plan(ssh_dir: Path, text: str) -> list[Change]:
    """Say which files have to change so that the client knows these hosts. Raises: StoreError."""
    wanted = {ssh_dir / INCLUDED: _HEAD + text}
    config = ssh_dir / "config"
    present = _read(config)
    if _INCLUDE.strip() not in (line.strip() for line in (present or "").splitlines()):
        # an Include counts for every host only when it stands before the first Host line
        wanted[config] = _INCLUDE + (f"\n{present}" if present else "")
    return [Change(path, new, _read(path) is None) for path, new in wanted.items() if _read(path) != new]


def write(changes: Iterable[Change]) -> None:
    """Write the files, each whole or not at all, readable by their owner only. Raises: StoreError."""
    for change in changes:
        fresh = change.path.with_name(f".{change.path.name}.devgw-new")
        try:
            change.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_text(change.text)
            fresh.chmod(0o600)
            fresh.replace(change.path.resolve())
        except OSError as exc:
            raise _unusable(change.path, exc) from exc


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise _unusable(path, exc) from exc


def _unusable(path: Path, exc: OSError | UnicodeDecodeError) -> StoreError:
    cause = exc.strerror if isinstance(exc, OSError) else "this is not text"
    return StoreError(
        "ssh-config.unusable", f"{path}: {(cause or str(exc)).lower()}", "without --write the lines are only printed"
    )
