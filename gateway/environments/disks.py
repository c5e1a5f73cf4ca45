"""The disk of one environment: its volumes together of a fixed size, kept by the best way that this host has.

That is an ext4 image, or nothing. `disk_limit` says what another way would have to do.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.environments.disk_image import why_no_images
from gateway.environments.disk_limit import DiskLimit, DiskState, DiskUse
from gateway.environments.image_disks import ImageDisks
from gateway.model import EnvironmentRef


class Disks:
    """The disks of one gateway."""

    def __init__(
        self,
        state_dir: Path,
        viewers: Callable[[], Iterable[int]] = tuple,
        why_not: Callable[[], str] = why_no_images,
    ) -> None:
        """`viewers` are processes of engines that must see what is mounted."""
        self._images = ImageDisks(state_dir, viewers, why_not)
        self._limit: DiskLimit = self._images

    def why_not(self) -> str:
        """Say why this host keeps no sizes; empty where it does."""
        return self._limit.why_not()

    def prepare(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Have the environment's volumes as they must be before it starts: made, moved in, checked, mounted.

        Nothing is done for one without a size, or where no size can be kept.

        Raises:
            StoreError: `disk.damaged`, `disk.failed`, `disk.not-root`.
            ConflictError: `disk.no-room`, `disk.too-small`.
        """
        self._limit.prepare(ref, size_bytes)

    def grow(self, ref: EnvironmentRef, size_bytes: int, *, in_use: bool) -> None:
        """Make a disk larger, or make it where there was none; what is `in_use` stays in use.

        Raises:
            ConflictError: `environment.running`, for what cannot be done while it is in use; `disk.no-shrink`.
            DevgwError: as `prepare`.
        """
        self._limit.grow(ref, size_bytes, in_use=in_use)

    def require_no_shrink(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Raises: ConflictError `disk.no-shrink`, with the numbers."""
        self._limit.require_no_shrink(ref, size_bytes)

    def size(self, ref: EnvironmentRef) -> int:
        """Return the size that is kept; 0 where it has none."""
        return self._limit.size(ref)

    def state(self, ref: EnvironmentRef, size_bytes: int) -> DiskState:
        """Say what there is to say; `size_bytes` is what the store has, which may be ahead of what is there."""
        limit = self._limit
        kept = limit.size(ref)
        why_not = "" if kept or not size_bytes else self.why_not() or "from its next start on"
        use, kept_by = (limit.use(ref), limit.kept_by) if kept else (None, "")
        return DiskState(kept or size_bytes, use, kept_by, why_not)

    def use(self, ref: EnvironmentRef) -> DiskUse | None:
        """Return what is used of a disk, where that is known."""
        return self._limit.use(ref)

    def uses(self) -> dict[EnvironmentRef, DiskUse]:
        """Return what is used of each."""
        return self._limit.uses()

    def release(self, ref: EnvironmentRef) -> None:
        """Let go of it with its environment; files stay, what nothing was written to goes. Raises: StoreError."""
        self._limit.release(ref)

    def unmount(self, ref: EnvironmentRef) -> None:
        """Leave nothing that keeps its directory from being renamed; its files stay. Raises: StoreError."""
        self._limit.unmount(ref)

    def remove(self, ref: EnvironmentRef) -> None:
        """Remove it for good; what files it leaves, the caller removes. Raises: StoreError."""
        self._limit.remove(ref)

    def all(self, user: str = "*") -> list[EnvironmentRef]:
        """Return whose disks there are, those of deleted environments too."""
        return self._limit.all(user)

    def to_mount(self, user: str = "*") -> list[EnvironmentRef]:
        """Return whose files can be read only where their disk is mounted."""
        return self._images.all(user)

    def image(self, ref: EnvironmentRef) -> Path:
        """Return where its image is, or would be."""
        return self._images.image(ref)

    def is_mounted(self, ref: EnvironmentRef) -> bool:
        """Say whether this process sees its image mounted."""
        return self._images.is_mounted(ref)
