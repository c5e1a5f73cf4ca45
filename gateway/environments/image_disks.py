"""Disks as ext4 images: an environment's volumes together in a file system of its own, mounted on a loop device.

The image in `disks/USER/NAME` says that an environment has one; it outlives `delete`, as plain volumes do. Every call
is made under the environment's lock, and does again what an earlier one was cut off in.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.environments.disk_image import (
    check_image,
    grow_image,
    make_image,
    may_grow_mounted,
    run_program,
    whole_blocks,
    why_no_images,
)
from gateway.environments.disk_limit import DiskUse, refuse_shrink, require_size, stop_first
from gateway.environments.disk_mounts import DiskMounts
from gateway.environments.layout import VOLUMES, Layout, disk_error
from gateway.errors import ConflictError, StoreError
from gateway.model import EnvironmentRef
from gateway.removal import remove_tree
from policies.quantities import show_size

DISKS = "disks"
_IMAGE, _BEFORE, _COPY = "image", "before", "copy"


class ImageDisks:
    """Those of one gateway. `viewers` are processes of engines that must see what is mounted."""

    kept_by = "an ext4 image"

    def __init__(
        self,
        state_dir: Path,
        viewers: Callable[[], Iterable[int]] = tuple,
        why_not: Callable[[], str] = why_no_images,
    ) -> None:
        self._state_dir = state_dir
        self._mounts = DiskMounts(viewers)
        self.why_not = why_not
        """Says why this host enforces no sizes; empty where it does."""

    def prepare(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Have the environment's volumes where they must be before it starts: made, moved in, checked, mounted.

        Nothing is done for one without a size and without an image, or where no size can be enforced.

        Raises:
            StoreError: `disk.damaged`, `disk.failed`, `disk.not-root`.
            ConflictError: `disk.no-room`, `disk.too-small`.
        """
        image = self.image(ref)
        if self._directory(ref).exists() and not self.why_not():
            self._settle(ref)
        if not image.exists() and (not size_bytes or self.why_not()):
            return
        if reason := self.why_not():
            raise StoreError("disk.not-root", f"the files of {ref} are in {image}: {reason}", "run the gateway as root")
        try:
            if not image.exists():
                self._make(ref, whole_blocks(size_bytes))
            place = self._place(ref)
            place.mkdir(parents=True, exist_ok=True, mode=0o755)
            if whole_blocks(size_bytes) > image.stat().st_size:
                self._grow_at_rest(ref, size_bytes)
            self._mounts.mount(image, place)
        except OSError as exc:
            raise disk_error(exc, image) from exc

    def grow(self, ref: EnvironmentRef, size_bytes: int, *, in_use: bool) -> None:
        """Make a disk larger, or make it where there was none; what is `in_use` stays mounted.

        Raises:
            ConflictError: `environment.running`, for what cannot be done while it is in use; `disk.no-shrink`.
            DevgwError: as `prepare`.
        """
        image = self.image(ref)
        if not image.exists() and in_use:
            raise stop_first(ref, "its files move onto a disk of their own")
        if image.exists():
            self.require_no_shrink(ref, size_bytes)
            if in_use and not may_grow_mounted():
                raise stop_first(ref, "this process may not grow a disk that is mounted (CAP_SYS_RESOURCE)")
        if in_use:
            self.prepare(ref, 0)
            grow_image(image, whole_blocks(size_bytes), self._mounts.device(self._place(ref)))
            return
        self.prepare(ref, 0)
        if image.exists():  # also what a growth that was cut off has not finished
            self._grow_at_rest(ref, size_bytes)
        self.prepare(ref, size_bytes)

    def require_no_shrink(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Raises: ConflictError `disk.no-shrink`, with the numbers."""
        size_now = self.size(ref)
        if whole_blocks(size_bytes) < size_now:
            raise refuse_shrink(ref, size_bytes, size_now, self.use(ref))

    def has(self, ref: EnvironmentRef) -> bool:
        """Say whether it has an image, or one that was cut off in its making."""
        return self._directory(ref).exists()

    def size(self, ref: EnvironmentRef) -> int:
        """Return the size of its image; 0 where it has none."""
        image = self.image(ref)
        return image.stat().st_size if image.exists() else 0

    def use(self, ref: EnvironmentRef) -> DiskUse | None:
        """Return what is used of a disk that is mounted."""
        place = self._place(ref)
        return _use_of(place) if self._mounts.device(place) else None

    def uses(self) -> dict[EnvironmentRef, DiskUse]:
        """Return what is used of each disk that is mounted; the kernel's list is read once for all."""
        places = self._mounts.places()
        found = {ref: _use_of(self._place(ref)) for ref in self.all() if self._place(ref) in places}
        return {ref: use for ref, use in found.items() if use is not None}

    def release(self, ref: EnvironmentRef) -> None:
        """Unmount it; an image that nothing was ever written to goes, one with files stays. Raises: StoreError."""
        if not self._directory(ref).exists():
            return
        if not self.image(ref).exists():
            self._settle(ref)
        is_empty = self._is_empty(ref)
        self.unmount(ref)
        if is_empty:
            self._remove_directory(ref)
            _remove_empty(self._place(ref), self._place(ref).parent)

    def unmount(self, ref: EnvironmentRef) -> None:
        """Unmount it; its files stay. Raises: StoreError."""
        if not self._directory(ref).exists():
            return
        self._mounts.unmount(self._place(ref))
        self._mounts.unmount(self._directory(ref) / _COPY)

    def remove(self, ref: EnvironmentRef) -> None:
        """Unmount it and remove it for good. Raises: StoreError."""
        if self._directory(ref).exists():
            self.unmount(ref)
            self._remove_directory(ref)
            _remove_empty(self._place(ref), self._place(ref).parent)

    def all(self, user: str = "*") -> list[EnvironmentRef]:
        """Return whose images there are, those of deleted environments too."""
        images = sorted((self._state_dir / DISKS).glob(f"{user}/*/{_IMAGE}"))
        return [EnvironmentRef.parse("+".join(image.parent.parts[-2:])) for image in images]

    def is_mounted(self, ref: EnvironmentRef) -> bool:
        """Say whether this process sees it mounted."""
        return bool(self._mounts.device(self._place(ref)))

    def image(self, ref: EnvironmentRef) -> Path:
        """Return where its image is, or would be."""
        return self._directory(ref) / _IMAGE

    def _make(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Make the image, with the files in it that the environment has already."""
        require_size(size_bytes)
        directory, place = self._directory(ref), self._place(ref)
        directory.parent.parent.mkdir(exist_ok=True, mode=0o700)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not place.is_dir() or not any(place.iterdir()):
            make_image(self.image(ref), size_bytes)
            return
        used = int(run_program("du", "-sx", "--block-size=1", "--", str(place)).split("\t", 1)[0])
        if used > size_bytes * 9 // 10:
            has = show_size(used - used % 2**20)
            message = f"{ref} has files of {has}, which do not fit a disk of {show_size(size_bytes)}"
            raise ConflictError("disk.too-small", message, "ask for more with --disk, or remove some first")
        partial, copy = directory / f"{_IMAGE}.whole", directory / _COPY
        make_image(partial, size_bytes)
        copy.mkdir(exist_ok=True, mode=0o700)
        self._mounts.mount(partial, copy)
        run_program("cp", "-a", "--", f"{place}/.", str(copy))
        self._mounts.unmount(copy)
        check_image(partial)
        place.rename(directory / _BEFORE)
        partial.rename(self.image(ref))
        self._settle(ref)

    def _grow_at_rest(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Grow what nothing uses, where it is not mounted: that asks for no capability."""
        self.unmount(ref)
        if not self._mounts.is_closed(self.image(ref)):
            message = f"files of {ref} are open on this host, so its disk cannot be grown now"
            raise ConflictError("disk.busy", message, f"'fuser -vm {self._place(ref)}' may say who has them")
        grow_image(self.image(ref), whole_blocks(size_bytes), "")

    def _settle(self, ref: EnvironmentRef) -> None:
        """Finish or undo a move of files into an image that was cut off at any step."""
        directory, before = self._directory(ref), self._directory(ref) / _BEFORE
        remains = [directory / name for name in (_BEFORE, _COPY, f"{_IMAGE}.whole", f"{_IMAGE}.new")]
        try:
            if (directory / _COPY).exists():
                self._mounts.unmount(directory / _COPY)
            if before.exists() and not self.image(ref).exists():
                if self._place(ref).exists():
                    self._place(ref).rmdir()
                before.rename(self._place(ref))
            for place in remains:
                if os.path.lexists(place):
                    remove_tree(place)
        except OSError as exc:
            raise disk_error(exc, directory) from exc

    def _is_empty(self, ref: EnvironmentRef) -> bool:
        if not self.image(ref).exists():
            return True  # what was cut off in its making
        if not self._mounts.device(self._place(ref)):
            return False
        volumes = (self._place(ref) / name for name in VOLUMES)
        return not any(any(volume.iterdir()) for volume in volumes if volume.is_dir())

    def _remove_directory(self, ref: EnvironmentRef) -> None:
        try:
            remove_tree(self._directory(ref))
        except OSError as exc:
            raise disk_error(exc, self._directory(ref)) from exc
        _remove_empty(self._directory(ref).parent)

    def _directory(self, ref: EnvironmentRef) -> Path:
        return self._state_dir / DISKS / ref.user / ref.name

    def _place(self, ref: EnvironmentRef) -> Path:
        return Layout.of(self._state_dir, ref).volumes


def _use_of(place: Path) -> DiskUse | None:
    try:
        found = os.statvfs(place)
    except OSError:  # damaged, or gone just now
        return None
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    size = used + found.f_bavail * found.f_frsize  # as df counts: what the kernel keeps is nobody's
    return DiskUse(size, used, found.f_files, found.f_files - found.f_ffree)


def _remove_empty(*places: Path) -> None:
    for place in places:
        try:
            place.rmdir()
        except OSError:
            return
