"""The whole gateway as one thing: backed up while it serves, restored onto a machine that has nothing.

What is made and restored is journaled; a restore that fails leaves no journal that could hold it.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from gateway.audit.head_signing import HeadSigner
from gateway.audit.store_comparison import Discrepancy
from gateway.backup import restoring, volumes
from gateway.backup.making import Plan, Show, make
from gateway.backup.manifest import STATE, Manifest
from gateway.backup.source import unpack_directory, unpack_stream
from gateway.backup.target import StreamTarget, directory_target, unwritable
from gateway.config import Settings
from gateway.errors import BackupError
from gateway.model import EnvironmentRef
from gateway.operations.recorded import Recorded


@dataclass(frozen=True, slots=True)
class Made:
    """What a backup holds, and the digest of its manifest: kept elsewhere, it tells this backup from any other."""

    manifest: Manifest
    sha256: str

    @property
    def size_bytes(self) -> int:
        return sum(entry.size for entry in self.manifest.entries.values())


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """How a backup is to be believed, and what may be moved aside for it."""

    heads: Path | None = None
    key: str | None = None
    force: bool = False
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class BackupParts:
    """What a backup is made with. `mount_disks` has every disk of an environment where its files can be read."""

    signer: Callable[[], HeadSigner]
    recorded: Callable[[], Recorded]
    contradictions: Callable[[], Iterable[Discrepancy]]
    mount_disks: Callable[[], Iterable[EnvironmentRef]]


class BackupOperations:
    """An administrator's acts on all of a gateway."""

    def __init__(self, settings: Settings, parts: BackupParts) -> None:
        self._settings = settings
        self._signer = parts.signer
        self._recorded = parts.recorded
        self._contradictions = parts.contradictions
        self._mount_disks = parts.mount_disks

    def make_directory(self, place: Path, plan: Plan, previous: Path | None, show: Show) -> Made:
        """Back up into a directory that is not there yet. Raises: DevgwError."""
        with self._recorded().failing("backup.made", target=str(place)), directory_target(place) as (target, partial):
            manifest = make(self._settings, self._signer(), target, plan, show)
            if plan.volumes:
                show("volumes")
                disks = [Path(ref.user, ref.name) for ref in self._mount_disks()]
                volumes.take(self._settings.state_dir, partial, previous, disks)
            target.finish(manifest)
        return self._note_made(manifest, str(place))

    def make_stream(self, stream: BinaryIO, plan: Plan, show: Show) -> Made:
        """Back up into a tar stream. Raises: DevgwError."""
        with self._recorded().failing("backup.made", target="-"):
            try:
                target = StreamTarget(stream)
                manifest = make(self._settings, self._signer(), target, plan, show)
                target.finish(manifest)
                stream.flush()
            except OSError as exc:
                raise unwritable(exc, "standard output") from exc
        return self._note_made(manifest, "-")

    def restore(self, source: Path | BinaryIO, order: RestoreOrder, show: Show) -> restoring.Restored:
        """Put a backup in place, once all of it is read and proven. Raises: DevgwError; then nothing is changed."""
        restoring.refuse_while_open(self._settings)
        try:
            staging = restoring.staging_of(self._settings)
            try:
                restored = self._restore(source, staging, order, show)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except OSError as exc:
            raise unwritable(exc, self._settings.state_dir) from exc
        manifest = restored.manifest
        self._recorded().note(
            "backup.restored",
            made_at=manifest.made_at,
            host=manifest.host,
            devgw=manifest.devgw,
            sha256=_digest(manifest),
            records=str(restored.report.last_seq),
            moved_aside=str(restored.moved_aside or ""),
            lost_records=str(restored.lost_records),
        )
        return restored

    def contradictions(self) -> list[Discrepancy]:
        """Return what the restored database lacks of the journal, which is younger by moments. Raises: DevgwError."""
        try:
            return list(self._contradictions())
        except (OSError, ValueError) as exc:
            raise BackupError("backup.damaged", f"the restored database cannot be compared: {exc}") from exc

    def _restore(self, source: Path | BinaryIO, staging: Path, order: RestoreOrder, show: Show) -> restoring.Restored:
        show("reading the backup")
        manifest = unpack_directory(source, staging) if isinstance(source, Path) else unpack_stream(source, staging)
        show("proving the journal")
        report, covered = restoring.prove(staging, manifest, order.heads, order.key)
        if not order.unproven:
            restoring.require_proven(report)
        if isinstance(source, Path) and manifest.has_volumes:
            show("volumes")
            (staging / STATE).mkdir(mode=0o700, exist_ok=True)
            volumes.put_back(source, staging / STATE)
        show("putting it in place")
        restored = restoring.put_in_place(self._settings, staging, manifest, report, force=order.force)
        return replace(restored, lost_records=max(0, covered - report.last_seq))

    def _note_made(self, manifest: Manifest, target: str) -> Made:
        made = Made(manifest, _digest(manifest))
        self._recorded().note(
            "backup.made",
            target=target,
            files=str(len(manifest.entries)),
            bytes=str(made.size_bytes),
            records=str(manifest.records),
            sha256=made.sha256,
            volumes=manifest.has_volumes,
            database=bool(manifest.dump),
        )
        return made


def _digest(manifest: Manifest) -> str:
    return sha256(manifest.text().encode()).hexdigest()
