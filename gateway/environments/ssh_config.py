"""Blocks for OpenSSH's ssh_config(5), and the file that a client's own configuration includes. Prints nothing."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import StoreError
from gateway.model import DEFAULT_ENVIRONMENT, EnvironmentRef

INCLUDED = "devgw.conf"
_HEAD = "# Written by 'devgw config-ssh --write'; changes here are lost.\n"
_PORTS = range(20_000, 30_000)
"""Of the client's own notebooks: below those that systems give to outgoing connections."""
_INCLUDE = f"Include {INCLUDED}\n"


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where the client finds the gateway, and which of its keys to offer."""

    host: str
    port: int
    notebook_port: int
    identity: str = ""
    fingerprint: str = ""
    """Of its host key, where this is the gateway's own machine."""


@dataclass(frozen=True, slots=True)
class Change:
    """A file that would be, or was, written."""

    path: Path
    text: str
    is_new: bool


def alias_of(ref: EnvironmentRef) -> str:
    """Return the Host name of an environment: `devgw-alice`, `devgw-alice.proj` (a dot, for names hold hyphens)."""
    return f"devgw-{ref.user}" + ("" if ref.name == DEFAULT_ENVIRONMENT else f".{ref.name}")


def notebook_alias_of(ref: EnvironmentRef) -> str:
    """Return the Host name that also forwards the notebook: no alias of an environment holds a plus."""
    return f"{alias_of(ref)}+notebook"


def local_ports(refs: Iterable[EnvironmentRef]) -> dict[EnvironmentRef, int]:
    """Give each environment a local port of its own, the same one every time as far as no two have the same."""
    taken: dict[EnvironmentRef, int] = {}
    for ref in sorted(set(refs), key=str):
        port = _PORTS.start + zlib.crc32(str(ref).encode()) % len(_PORTS)
        while port in taken.values():
            port = port + 1 if port + 1 in _PORTS else _PORTS.start
        taken[ref] = port
    return taken


def block(gateway: Gateway, ref: EnvironmentRef, local_port: int) -> str:
    """Return one environment's Host blocks: the forward has an alias of its own, so that any other connection has none.

    Else a second terminal would ask for a port that the first one holds.
    """
    lines = [
        f"Host {alias_of(ref)} {notebook_alias_of(ref)}",
        *([f"    # host key {gateway.fingerprint}"] if gateway.fingerprint else []),
        f"    HostName {gateway.host}",
        f"    Port {gateway.port}",
        f"    User {ref}",
        *([f"    IdentityFile {gateway.identity}"] if gateway.identity else []),
        "    IdentitiesOnly yes",
        "    ServerAliveInterval 30",
        "    ServerAliveCountMax 4",
        f"Host {notebook_alias_of(ref)}",
        f"    # ssh -N {notebook_alias_of(ref)}, then http://localhost:{local_port}",
        f"    LocalForward {local_port} localhost:{gateway.notebook_port}",
        "    ExitOnForwardFailure yes",
    ]
    return "".join(f"{line}\n" for line in lines)


def blocks(gateway: Gateway, refs: Iterable[EnvironmentRef]) -> str:
    """Return the blocks of several environments."""
    chosen = list(dict.fromkeys(refs))
    ports = local_ports(chosen)
    return "\n".join(block(gateway, ref, ports[ref]) for ref in chosen)


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
