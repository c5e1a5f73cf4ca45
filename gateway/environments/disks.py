"""The disk of one environment: its volumes together of a fixed size, kept by the best way that this host has.

That is a project quota, an ext4 image or nothing, in this order; the setting `environments.disk_enforcement` chooses
among them. A disk stays with the way it was made in: its files are there, or are of its project.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.config import Settings
from gateway.engines.choice import EngineChoice
from gateway.environments.disk_image import why_no_images
from gateway.environments.disk_limit import DiskLimit, DiskState, DiskUse
from gateway.environments.image_disks import ImageDisks
from gateway.environments.quota_disks import QuotaDisks
from gateway.errors import StoreError
from gateway.model import EnvironmentRef
from gateway.store.database import Database
from gateway.store.projects import ProjectTable

AUTO, PROJECT_QUOTA, IMAGE, NONE = "auto", "project-quota", "image", "none"
"""What `environments.disk_enforcement` may be."""


class Disks:
    """The disks of one gateway."""

    def __init__(
        self,
        state_dir: Path,
        viewers: Callable[[], Iterable[int]] = tuple,
        why_not: Callable[[], str] = why_no_images,
        quotas: QuotaDisks | None = None,
        enforcement: str = AUTO,
    ) -> None:
        """`viewers` are processes of engines that must see what is mounted, `why_not` says why images cannot be."""
        self._images = ImageDisks(state_dir, viewers, why_not)
        self._quotas = quotas
        self._enforcement = enforcement

    @classmethod
    def of(cls, settings: Settings, database: Database, engines: EngineChoice) -> "Disks":
        """Return those that the settings want, and that the engine can have."""
        if not engines.runs_here:
            return cls(settings.state_dir, why_not=lambda: "each volume in a cluster has the size of its claim")
        numbers = ProjectTable(database)
        quotas = QuotaDisks(settings.state_dir, numbers, engines.why_projects_are_left)
        way = settings.environments.disk_enforcement
        return cls(settings.state_dir, engines.daemons, quotas=quotas, enforcement=way)

    def why_not(self, ref: EnvironmentRef | None = None) -> str:
        """Say why this host keeps no sizes, or not that of an environment's disk; empty where it does."""
        way = self._holder(ref) if ref is not None else None
        if way is not None:
            return way.why_not()
        if self._chosen() is not None:
            return ""
        if self._enforcement == NONE:
            return f"environments.disk_enforcement is {NONE}"
        wants_quotas = self._enforcement == PROJECT_QUOTA and self._quotas is not None
        return self._why_no_quotas() if wants_quotas else self._images.why_not()

    def chosen_way(self) -> str:
        """Return what keeps the size of a disk that is made now; empty where nothing does."""
        chosen = self._chosen()
        return "" if chosen is None else chosen.kept_by

    def prepare(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Have the environment's volumes as they must be before it starts: made, moved in, checked, mounted, bounded.

        Nothing is done for one without a size, or where no size can be kept.

        Raises:
            StoreError: `disk.damaged`, `disk.failed`, `disk.not-root`.
            ConflictError: `disk.no-room`, `disk.too-small`.
        """
        holder, way = self._holder(ref), self._way(ref)
        if way is not None:
            way.prepare(ref, size_bytes)
        if way is not holder and holder is not None:
            holder.remove(ref)

    def grow(self, ref: EnvironmentRef, size_bytes: int, *, in_use: bool) -> None:
        """Make a disk larger, or make it where there was none; what is `in_use` stays in use.

        Raises:
            ConflictError: `environment.running`, for what cannot be done while it is in use; `disk.no-shrink`.
            StoreError: `disk.unenforced`.
            DevgwError: as `prepare`.
        """
        holder, way = self._holder(ref), self._way(ref)
        reason = self.why_not() if way is None else way.why_not()
        if way is None or reason:
            raise StoreError("disk.unenforced", f"no disk gets a size here: {reason}", "'devgw doctor' says more")
        way.grow(ref, size_bytes, in_use=in_use)
        if way is not holder and holder is not None:
            holder.remove(ref)

    def require_no_shrink(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Raises: ConflictError `disk.no-shrink`, with the numbers."""
        way = self._holder(ref)
        if way is not None:
            way.require_no_shrink(ref, size_bytes)

    def size(self, ref: EnvironmentRef) -> int:
        """Return the size that is kept; 0 where it has none."""
        way = self._holder(ref)
        return 0 if way is None else way.size(ref)

    def state(self, ref: EnvironmentRef, size_bytes: int) -> DiskState:
        """Say what there is to say; `size_bytes` is what the store has, which may be ahead of what is there."""
        way = self._holder(ref)
        kept = 0 if way is None else way.size(ref)
        why_not = "" if kept or not size_bytes else self.why_not(ref) or "from its next start on"
        use, kept_by = (way.use(ref), way.kept_by) if way is not None and kept else (None, "")
        return DiskState(kept or size_bytes, use, kept_by, why_not)

    def use(self, ref: EnvironmentRef) -> DiskUse | None:
        """Return what is used of a disk, where that is known."""
        way = self._holder(ref)
        return None if way is None else way.use(ref)

    def uses(self) -> dict[EnvironmentRef, DiskUse]:
        """Return what is used of each."""
        found: dict[EnvironmentRef, DiskUse] = {}
        for way in reversed(self._ways):
            found |= way.uses()
        return found

    def release(self, ref: EnvironmentRef) -> None:
        """Let go of it with its environment; files stay, what nothing was written to goes. Raises: StoreError."""
        for way in self._ways:
            way.release(ref)

    def unmount(self, ref: EnvironmentRef) -> None:
        """Leave nothing that keeps its directory from being renamed; its files stay. Raises: StoreError."""
        self._images.unmount(ref)

    def remove(self, ref: EnvironmentRef) -> None:
        """Remove it for good; what files it leaves, the caller removes. Raises: StoreError."""
        for way in self._ways:
            way.remove(ref)

    def all(self, user: str = "*") -> list[EnvironmentRef]:
        """Return whose disks there are, those of deleted environments too."""
        return sorted({ref for way in self._ways for ref in way.all(user)})

    def to_mount(self, user: str = "*") -> list[EnvironmentRef]:
        """Return whose files can be read only where their disk is mounted."""
        return self._images.all(user)

    def image(self, ref: EnvironmentRef) -> Path:
        """Return where its image is, or would be."""
        return self._images.image(ref)

    def is_mounted(self, ref: EnvironmentRef) -> bool:
        """Say whether this process sees its image mounted."""
        return self._images.is_mounted(ref)

    def why_leavable(self) -> str:
        """Say why users can leave their project, where there are projects; empty where they cannot."""
        if self._quotas is None or not (self.chosen_way() == self._quotas.kept_by or self._quotas.all()):
            return ""
        return self._quotas.leave()

    @property
    def _ways(self) -> tuple[DiskLimit, ...]:
        """All there are; whose files are in an image has them there, whatever else was begun."""
        return (self._images,) if self._quotas is None else (self._images, self._quotas)

    def _holder(self, ref: EnvironmentRef) -> DiskLimit | None:
        """Return the way that an environment's disk is kept."""
        return next((way for way in self._ways if way.has(ref)), None)

    def _chosen(self) -> DiskLimit | None:
        """Return the way of a disk that is made now; None where there is none."""
        if self._enforcement in {AUTO, PROJECT_QUOTA} and self._quotas is not None and not self._why_no_quotas():
            return self._quotas
        return self._images if self._enforcement in {AUTO, IMAGE} and not self._images.why_not() else None

    def _way(self, ref: EnvironmentRef) -> DiskLimit | None:
        """Return the way to prepare a disk. One that was set moves a project onto an image, where quotas are off."""
        holder, quotas = self._holder(ref), self._quotas
        if quotas is not None and holder is quotas and self._enforcement == IMAGE and quotas.why_not():
            return self._chosen() or holder
        return holder or self._chosen()

    def _why_no_quotas(self) -> str:
        """Say why no disk that is made now is a project; with `auto` also because its user could leave it."""
        assert self._quotas is not None  # noqa: S101 - asked before
        return self._quotas.why_not() or (self._quotas.leave() if self._enforcement == AUTO else "")
