"""The directory of a run's checkpoints: names, the seal that makes one complete, and what is kept.

Layout: `step-00001200/` with torch.distributed.checkpoint's files, `trainer-<rank>.pt` and `MANIFEST.json`
(sha256 of every file). A checkpoint is written under `.tmp-step-…` and renamed when sealed, so that
a directory without the prefix is complete, whenever the process was killed.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from devgw_runner.errors import CheckpointError

MANIFEST = "MANIFEST.json"
MANIFEST_VERSION = 2
READABLE_VERSIONS = frozenset({1, 2})
TEMPORARY_PREFIX = ".tmp-"
_STEP_NAME = re.compile(r"^step-(\d{8,})$")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself. `files` maps each name to [sha256, bytes].

    `made` says on which kind of device, and how in parallel.
    """

    step: int
    model: dict[str, list[int]]
    numerics: dict[str, Any]
    world: int
    torch: str
    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    version: int = MANIFEST_VERSION


def step_directory(root: Path, step: int) -> Path:
    return root / f"step-{step:08d}"


def temporary_directory(root: Path, step: int) -> Path:
    return root / f"{TEMPORARY_PREFIX}step-{step:08d}"


def list_checkpoints(root: Path) -> list[Path]:
    """Return the complete checkpoints, newest first."""
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if _STEP_NAME.match(path.name) and path.is_dir()]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    match = _STEP_NAME.match(checkpoint.name)
    return int(match.group(1)) if match else -1


def sweep_unfinished(root: Path) -> None:
    """Delete what a killed process left half-written."""
    for path in root.glob(TEMPORARY_PREFIX + "*"):
        shutil.rmtree(path, ignore_errors=True)


def seal(temporary: Path, final: Path, manifest: Manifest) -> None:
    """Hash every file, write the manifest, make all of it durable, and rename the directory into place."""
    files = {path.name: (_sha256(path), path.stat().st_size) for path in sorted(temporary.iterdir())}
    content = json.dumps(asdict(manifest) | {"files": files}, indent=1).encode()
    with (temporary / MANIFEST).open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    _sync_directory(temporary)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _sync_directory(final.parent)


def prune(root: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints."""
    for path in list_checkpoints(root)[keep:]:
        # Renamed first: a kill in the middle must not leave a directory that looks complete.
        doomed = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def read_manifest(checkpoint: Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises:
        CheckpointError: it is missing or unreadable.
    """
    try:
        raw = json.loads((checkpoint / MANIFEST).read_bytes())
        return Manifest(**raw)
    except FileNotFoundError as exc:
        raise _unusable(checkpoint, "it has no manifest") from exc
    except (OSError, ValueError, TypeError) as exc:
        raise _unusable(checkpoint, "its manifest is unreadable") from exc


def verify(checkpoint: Path) -> Manifest:
    """Compare every file with its recorded checksum and return the manifest.

    Raises:
        CheckpointError: a file is missing, short or altered; it names the file.
    """
    manifest = read_manifest(checkpoint)
    if manifest.version not in READABLE_VERSIONS:
        readable = " and ".join(map(str, sorted(READABLE_VERSIONS)))
        raise _unusable(checkpoint, f"its format is version {manifest.version}, this runner reads {readable}")
    for name, (digest, size) in manifest.files.items():
        path = checkpoint / name
        if not path.is_file():
            raise _unusable(checkpoint, f"{name} is missing")
        if path.stat().st_size != size:
            raise _unusable(checkpoint, f"{name} has {path.stat().st_size} of {size} bytes")
        if _sha256(path) != digest:
            raise _unusable(checkpoint, f"{name} does not match its checksum")
    return manifest


def _unusable(checkpoint: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {checkpoint.name} cannot be used: {reason}",
        "name another with --resume PATH, or --resume off",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
