"""Where an environment's files lie on the host, who owns them and how they are mounted. `account` fills them."""

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import DevgwError, StoreError
from gateway.model import EnvironmentRef, Mount
from gateway.removal import own_directory, remove_tree

VOLUMES = ("home", "workspace", "checkpoints", "logs")


@dataclass(frozen=True, slots=True)
class Layout:
    """The host directories of one environment (docs/reference/environment-contract.md).

    `run` is shared and not to be trusted; `config` is read-only inside; `volumes` outlive `delete`.
    """

    ref: EnvironmentRef
    root: Path
    volumes: Path

    @classmethod
    def of(cls, state_dir: Path, ref: EnvironmentRef) -> "Layout":
        """Name the places; nothing is made."""
        return cls(ref, state_dir / "environments" / ref.user / ref.name, state_dir / "volumes" / ref.user / ref.name)

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def config(self) -> Path:
        return self.root / "config"

    def make(self, uid: int, gid: int) -> None:
        """Make every directory with its right owner before anything is mounted; existing content is kept.

        Raises:
            StoreError: `store.no-space` or `store.unusable`, naming the directory.
        """
        try:
            for place in (self.root, self.volumes, self.config):
                place.mkdir(parents=True, exist_ok=True, mode=0o755)
            own_directory(self.run, uid, gid, mode=0o700)
            for name in VOLUMES:
                own_directory(self.volumes / name, uid, gid, mode=0o700)
        except OSError as exc:
            raise disk_error(exc, self.root) from exc

    def mounts(self, datasets: dict[str, Path], shared: Iterable[Mount] = ()) -> tuple[Mount, ...]:
        """Return what the engine mounts, outermost targets first."""
        home, workspace, checkpoints, logs = (self.volumes / name for name in VOLUMES)
        return (
            Mount(self.run, "/run/devgw"),
            Mount(self.config, "/etc/devgw/env", read_only=True),
            Mount(self.config / "passwd", "/etc/passwd", read_only=True),
            Mount(self.config / "group", "/etc/group", read_only=True),
            Mount(home, f"/home/{self.ref.user}"),
            Mount(workspace, "/workspace"),
            Mount(checkpoints, "/checkpoints"),
            Mount(logs, "/logs"),
            *shared,
            *(Mount(path, f"/datasets/{name}", read_only=True) for name, path in sorted(datasets.items())),
        )

    def remove(self) -> None:
        """Remove sockets and configuration; the volumes stay. Raises: StoreError."""
        _remove(self.run)
        _remove(self.config)
        _remove_empty(self.root, self.root.parent)

    def remove_volumes(self) -> None:
        """Remove the person's own files for good. Raises: StoreError, when something is left."""
        _remove(self.volumes)
        _remove_empty(self.volumes.parent)

    def remove_empty_volumes(self) -> None:
        """Remove volumes nothing was ever written to: those of a create that failed."""
        _remove_empty(*(self.volumes / name for name in VOLUMES), self.volumes, self.volumes.parent)


def disk_error(exc: OSError, place: Path) -> DevgwError:
    """Put an OSError into words. ENOSPC and EDQUOT get the code `store.no-space`."""
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreError(
            "store.no-space", f"no space left under {place}", "free some space, then try again; nothing was lost"
        )
    return StoreError("store.unusable", f"cannot write under {place}: {exc.strerror}", "check owner and permissions")


def _remove(place: Path) -> None:
    try:
        remove_tree(place)
    except OSError as exc:
        raise StoreError(
            "store.unusable", f"cannot remove {exc.filename or place}: {exc.strerror}", _hint_of(exc, place)
        ) from exc


def _hint_of(exc: OSError, place: Path) -> str:
    if exc.errno == errno.EBUSY:
        return f"'findmnt' shows what is mounted below {place}; unmount it, then try again"
    return "check owner and permissions, then try again; what could be removed is gone"


def _remove_empty(*places: Path) -> None:
    for place in places:
        try:
            place.rmdir()
        except OSError:
            return
