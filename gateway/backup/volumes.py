"""People's files, to a backup's directory and back, by rsync: what has not changed is a link into the one before."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from gateway.backup.manifest import VOLUMES
from gateway.errors import BackupError

_VANISHED = 24  # rsync(1): files were removed while they were copied, which is no fault of a gateway that serves
_OPTIONS = ("--archive", "--hard-links", "--xattrs", "--acls", "--numeric-ids", "--sparse", "--one-file-system")


def take(volumes: Path, backup: Path, previous: Path | None, disks: Iterable[Path] = ()) -> None:
    """Copy all volumes; what has not changed since the backup before is linked to it. Raises: BackupError.

    `disks` are those below that are a file system of their own and mounted: rsync stays within each.
    """
    target = backup / VOLUMES
    target.mkdir(mode=0o700)
    for place in (Path(), *disks):
        link = (f"--link-dest={previous.resolve() / VOLUMES / place}",) if previous is not None else ()
        if (volumes / place).is_dir():
            _rsync(*link, f"{volumes / place}/", f"{target / place}/")
    target.chmod(0o700)


def put_back(backup: Path, volumes: Path) -> None:
    """Copy them back. Raises: BackupError."""
    volumes.mkdir(mode=0o755, exist_ok=True)
    _rsync(f"{backup / VOLUMES}/", f"{volumes}/")
    volumes.chmod(0o755)


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
