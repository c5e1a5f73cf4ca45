"""People's files, to a backup's directory and back, by rsync: what has not changed is a link into the one before."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from gateway.backup.manifest import SHARED, VOLUMES
from gateway.errors import BackupError

_VANISHED = 24  # rsync(1): files were removed while they were copied, which is no fault of a gateway that serves
_OPTIONS = ("--archive", "--hard-links", "--xattrs", "--acls", "--numeric-ids", "--sparse", "--one-file-system")


def take(state: Path, backup: Path, previous: Path | None, disks: Iterable[Path] = ()) -> None:
    """Copy all volumes, users' own and shared ones; what has not changed since the backup before is linked to it.

    `disks` are those below `volumes` that are a file system of their own and mounted: rsync stays within each.
    Raises: BackupError.
    """
    shared = state / SHARED
    mounted = [Path(place.name) for place in sorted(shared.iterdir()) if place.is_mount()] if shared.is_dir() else []
    _take(state / VOLUMES, backup / VOLUMES, previous and previous / VOLUMES, disks)
    _take(shared, backup / SHARED, previous and previous / SHARED, mounted)


def put_back(backup: Path, state: Path) -> None:
    """Copy them back, below a directory that is to be the state's. Raises: BackupError."""
    for name, mode in ((VOLUMES, 0o755), (SHARED, 0o700)):
        if (backup / name).is_dir():  # a backup of before volumes were shared has no such directory
            (state / name).mkdir(mode=mode, exist_ok=True)
            _rsync(f"{backup / name}/", f"{state / name}/")
            (state / name).chmod(mode)


def _take(source: Path, target: Path, previous: Path | None, mounted: Iterable[Path]) -> None:
    target.mkdir(mode=0o700)
    for place in (Path(), *mounted):
        link = (f"--link-dest={previous.resolve() / place}",) if previous is not None and previous.is_dir() else ()
        if (source / place).is_dir():
            _rsync(*link, f"{source / place}/", f"{target / place}/")
    target.chmod(0o700)


def _rsync(*arguments: str) -> None:
    try:
        done = subprocess.run(
            ["rsync", *_OPTIONS, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=None,
        )
    except FileNotFoundError as exc:
        hint = "install rsync, or leave --volumes out"
        raise BackupError("backup.no-rsync", "volumes are copied by rsync, which is not here", hint) from exc
    if done.returncode not in {0, _VANISHED}:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise BackupError("backup.volumes-failed", f"the volumes cannot be copied: {said}", "look at owner and room")
