"""Everything of one user in a tar file, before they are removed: files, keys, and how their environments were made."""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.disk import is_full
from gateway.errors import BackupError, ConflictError

ABOUT = "user.json"


def archive(about: Mapping[str, Any], volumes: Path, place: Path) -> str:
    """Write `user.json` and the directory of a user's volumes; the file has its name once it is whole and was read.

    Its ending says how it is compressed, as tar understands it: .tar, .tar.gz, .tar.zst. Returns its SHA-256.
    Raises: ConflictError `archive.exists`, BackupError `archive.failed`, `backup.no-space`.
    """
    if os.path.lexists(place):
        raise ConflictError("archive.exists", f"{place} is there already", "name a file that is not")
    with tempfile.TemporaryDirectory(prefix="devgw-archive-") as beside:
        (Path(beside) / ABOUT).write_text(json.dumps(about, indent=1, default=str) + "\n")
        partial = place.with_name(f".partial-{os.getpid()}-{place.name}")
        parts = ["-C", beside, ABOUT]
        if volumes.is_dir():
            names = [volumes.name]  # and those that are disks of their own: tar stays within a file system
            names += [f"{volumes.name}/{place.name}" for place in sorted(volumes.iterdir()) if place.is_mount()]
            parts += ["-C", str(volumes.absolute().parent), "--", *names]
        try:
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            options = ("--numeric-owner", "--xattrs", "--acls", "--sparse", "--one-file-system", "--auto-compress")
            _tar("--create", *options, f"--file={partial.absolute()}", *parts)
            _tar("--list", f"--file={partial.absolute()}")
            digest = _digest(partial)
            partial.rename(place)
        except OSError as exc:
            if is_full(exc):
                raise BackupError(
                    "backup.no-space", f"no space left for {place}", "make room, or take another"
                ) from exc
            raise BackupError(
                "archive.failed", f"{place}: {(exc.strerror or str(exc)).lower()}", "check its path"
            ) from exc
        finally:
            partial.unlink(missing_ok=True)
    return digest


def _tar(*arguments: str) -> None:
    done = subprocess.run(
        ["tar", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        check=False, timeout=None,
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise BackupError("archive.failed", f"the archive cannot be made: {said}", "nothing was removed; try again")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest
