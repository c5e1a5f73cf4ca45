"""The directory of a run's checkpoints: names, the seal that makes one complete, and what is kept.

Layout: `step-00001200/` with torch.distributed.checkpoint's files, `trainer-<rank>.pt` and `MANIFEST.json`
(sha256 of every file). A checkpoint is written under `.tmp-step-…` and renamed when sealed, so that
a directory without the prefix is complete, whenever the process was killed. Where another branch has a checkpoint
of the same step, the name ends in the branch's: `step-00001200.1f2e3d4c/`.
"""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from devgw_runner.checkpoint import durable
from devgw_runner.errors import CheckpointError

MANIFEST = "MANIFEST.json"
MANIFEST_VERSION = 2
READABLE_VERSIONS = frozenset({1, 2})
TEMPORARY_PREFIX = ".tmp-"
_STEP_NAME = re.compile(r"^step-(\d{8,})(?:\.[0-9a-f]{8})?$")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself. `files` maps each name to [sha256, bytes].

    `made` says on which kind of device, and how in parallel. `lineage` as in `lineage.Branch`.
    """

    step: int
    model: dict[str, list[int]]
    numerics: dict[str, Any]
    world: int
    torch: str
    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    run: str = ""
    branch: str = ""
    lineage: tuple[tuple[str, int], ...] = ()
    position: dict[str, int] = field(default_factory=dict)
    monitored: dict[str, Any] = field(default_factory=dict)  # the evaluation at this step, where there was one
    version: int = MANIFEST_VERSION


def step_directory(root: Path, step: int, branch: str = "") -> Path:
    """Return where a branch's checkpoint of a step stands, or will."""
    plain = root / f"step-{step:08d}"
    own = root / f"{plain.name}.{branch}"
    if branch and (own.exists() or (plain.exists() and branch_of(plain) != branch)):
        return own
    return plain


def branch_of(checkpoint: Path) -> str | None:
    """Return the branch of a checkpoint, None if its manifest cannot be read."""
    try:
        return read_manifest(checkpoint).branch
    except CheckpointError:
        return None


def temporary_directory(root: Path, step: int) -> Path:
    return root / f"{TEMPORARY_PREFIX}step-{step:08d}"


def list_checkpoints(root: Path) -> list[Path]:
    """Return the complete checkpoints, newest first."""
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if _STEP_NAME.match(path.name) and path.is_dir()]
    return sorted(found, key=step_of, reverse=True)


def list_branch(root: Path, branch: str) -> list[Path]:
    """Return a branch's checkpoints, newest first, with those that do not say whose they are."""
    return [path for path in list_checkpoints(root) if branch_of(path) in {branch, None}]


def step_of(checkpoint: Path) -> int:
    match = _STEP_NAME.match(checkpoint.name)
    return int(match.group(1)) if match else -1


def sweep_unfinished(root: Path) -> None:
    """Delete what a killed process left half-written, and put back what it was about to replace."""
    durable.recover(root)
    for path in root.glob(TEMPORARY_PREFIX + "*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def seal(temporary: Path, final: Path, manifest: Manifest) -> None:
    """Hash every file, write the manifest, make all of it durable, and rename the directory into place.

    A checkpoint of the same name stays until the new one is in its place.
    """
    files: dict[str, tuple[str, int]] = {}
    for path in sorted(temporary.iterdir()):
        durable.sync_file(path)
        files[path.name] = (_sha256(path), path.stat().st_size)
    content = json.dumps(asdict(manifest) | {"files": files}, indent=1).encode()
    durable.write_file(temporary / MANIFEST, content)
    durable.sync_directory(temporary)
    durable.put_in_place(temporary, final)


def best_checkpoints(checkpoints: list[Path], monitored: dict[str, Any], count: int) -> list[Path]:
    """Return the `count` best of these by the metric that `monitored` names, best first."""
    found = []
    for path in checkpoints:
        try:
            seen = read_manifest(path).monitored
        except CheckpointError:
            continue
        same = all(seen.get(word) == monitored.get(word) for word in ("name", "mode"))
        if same and seen.get("step") == step_of(path) and not math.isnan(seen["value"]):
            found.append((seen["value"] if seen["mode"] == "min" else -seen["value"], step_of(path), path))
    return [path for _, _, path in sorted(found)[:count]]


def prune(root: Path, keep: int, branch: str = "", spared: Collection[Path] = ()) -> None:
    """Delete all but the newest `keep` checkpoints of a branch, and those `spared`."""
    own = [path for path in list_checkpoints(root) if branch_of(path) == branch]
    for path in own[keep:]:
        if path in spared:
            continue
        # Renamed first: a kill in the middle must not leave a directory that looks complete.
        doomed = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
        os.rename(path, doomed)  # noqa: PTH104 - tests watch the calls of os
        shutil.rmtree(doomed, ignore_errors=True)


def read_manifest(checkpoint: Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises:
        CheckpointError: it is missing or unreadable.
    """
    try:
        raw = json.loads((checkpoint / MANIFEST).read_bytes())
        lineage = tuple((str(name), int(step)) for name, step in raw.get("lineage", ()))
        return Manifest(**(raw | {"lineage": lineage}))
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
