"""Disks as project quotas of ext4 or XFS: an environment's volumes are a project whose size the file system bounds.

The directory of the volumes says which project they are, and the kernel how large that is and what of it is used: the
store only remembers whose each number is, so that none is given twice. Nothing is mounted, and no room is set aside.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from gateway.environments.disk_limit import DiskUse, refuse_shrink, require_size, stop_first
from gateway.environments.layout import VOLUMES, Layout, disk_error
from gateway.environments.project_quota import KernelQuotas, ProjectRecord, opened
from gateway.environments.project_tree import mark_tree
from gateway.errors import ConflictError, DevgwError, StoreError
from gateway.model import EnvironmentRef
from policies.quantities import show_about, show_size

FIRST_PROJECT = 1_500_000_000
"""Ours are those from here to LAST_PROJECT: below lie those of people, of Docker, Podman and Kubernetes."""
LAST_PROJECT = 1_999_999_999
_BYTES_A_INODE = 16_384  # as mkfs.ext4 has it
_LEAST_INODES = 16_384
_MOST_TRIES = 1000


class Numbers(Protocol):
    """Remembers whose which number is; one that was given up is never given again."""

    def allot(self, ref: EnvironmentRef) -> int:
        """Return the environment's number, a new one where it has none; from 1 on."""

    def give_up(self, ref: EnvironmentRef) -> None:
        """Let go of the environment's number."""


class QuotaDisks:
    """Those of one gateway."""

    kept_by = "a project quota"

    def __init__(
        self,
        state_dir: Path,
        numbers: Numbers,
        leave: Callable[[], str] = str,
        kernel: KernelQuotas | None = None,
    ) -> None:
        """`leave` says why users could take their files out of their project; empty where they cannot."""
        self._state_dir = state_dir
        self._numbers = numbers
        self.leave = leave
        self._kernel = kernel or KernelQuotas()

    def why_not(self) -> str:
        """Say why this host cannot do it; empty where it can."""
        return self._kernel.why_not(self._state_dir / "volumes")

    def has(self, ref: EnvironmentRef) -> bool:
        """Say whether its volumes are a project of ours, all of them."""
        with self._opened(ref) as descriptor:
            return descriptor is not None and self._project(descriptor) != 0

    def prepare(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Have its volumes be a project of at least this size; 0: as they are.

        Raises:
            StoreError: `disk.failed`, `store.unusable`.
            ConflictError: `disk.no-room`, `disk.too-small`.
        """
        if not size_bytes or self.why_not():
            return
        place = self._place(ref)
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o755)
            with opened(place) as descriptor:
                project = self._project(descriptor)
                if not project:
                    self._begin(ref, descriptor, size_bytes)
                elif self._whole(descriptor, size_bytes) > self._kernel.record(descriptor, project).limit_bytes:
                    self._bound(ref, descriptor, project, size_bytes)
        except OSError as exc:
            raise _failed(exc, place) from exc

    def grow(self, ref: EnvironmentRef, size_bytes: int, *, in_use: bool) -> None:
        """Give it another size, at once; its first only while nothing runs in it."""
        if in_use and not self.has(ref):
            raise stop_first(ref, "its files become a project of their own")
        self.require_no_shrink(ref, size_bytes)
        self.prepare(ref, size_bytes)

    def require_no_shrink(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Raises: ConflictError `disk.no-shrink`, with the numbers."""
        with self._opened(ref) as descriptor:
            found = self._record(descriptor)
            if descriptor is not None and self._whole(descriptor, size_bytes) < found.limit_bytes:
                raise refuse_shrink(ref, size_bytes, found.limit_bytes, _use_of(found))

    def size(self, ref: EnvironmentRef) -> int:
        """Return its size; 0 where it has none, and where quotas are off."""
        with self._opened(ref) as descriptor:
            return self._record(descriptor).limit_bytes

    def use(self, ref: EnvironmentRef) -> DiskUse | None:
        """Return what the kernel has counted."""
        with self._opened(ref) as descriptor:
            return _use_of(self._record(descriptor))

    def uses(self) -> dict[EnvironmentRef, DiskUse]:
        """Return what is used of each."""
        return {ref: use for ref in self.all() if (use := self.use(ref)) is not None}

    def release(self, ref: EnvironmentRef) -> None:
        """Let go of volumes that nothing was written to; those with files stay, and so does their size."""
        place = self._place(ref)
        if not self.has(ref):
            self._numbers.give_up(ref)  # of a making that was cut off; what was marked is marked anew with another
        elif not any(any(volume.iterdir()) for volume in _volumes(place)):
            self.remove(ref)
            for empty in (*_volumes(place), place, place.parent):
                _remove_empty(empty)

    def unmount(self, ref: EnvironmentRef) -> None:
        """Nothing is mounted."""

    def remove(self, ref: EnvironmentRef) -> None:
        """Give its number up. What files are left stay marked with it, unbounded, until the caller removes them."""
        self._numbers.give_up(ref)
        try:
            with self._opened(ref) as descriptor:
                if descriptor is not None and (project := self._project(descriptor)) and not self.why_not():
                    self._kernel.limit(descriptor, project, 0, 0)
        except OSError as exc:
            raise _failed(exc, self._place(ref)) from exc

    def all(self, user: str = "*") -> list[EnvironmentRef]:
        """Return whose volumes are projects, those of deleted environments too."""
        places = sorted((self._state_dir / "volumes").glob(f"{user}/*/"))
        refs = [EnvironmentRef.parse("+".join(place.parts[-2:])) for place in places]
        return [ref for ref in refs if self.has(ref)]

    def _begin(self, ref: EnvironmentRef, descriptor: int, size_bytes: int) -> None:
        """Make the volumes a project: the directory is marked when all in it is, and bounded, and not before."""
        require_size(size_bytes)
        self._require_room(ref, size_bytes)
        place, project = self._place(ref), self._free_project(ref, descriptor)
        mark_tree(self._kernel, place, project)
        used = self._kernel.record(descriptor, project).used_bytes
        if used > self._whole(descriptor, size_bytes):
            has = show_about(used)
            message = f"{ref} has files of {has}, which do not fit a disk of {show_size(size_bytes)}"
            raise ConflictError("disk.too-small", message, "ask for more with --disk, or remove some first")
        self._bound(ref, descriptor, project, size_bytes)
        self._kernel.mark(descriptor, project, inherited=True)
        os.fsync(descriptor)

    def _free_project(self, ref: EnvironmentRef, descriptor: int) -> int:
        """Return a project that no file carries: a store that was restored may have forgotten some.

        What an earlier attempt has marked counts as another's: it is marked anew.
        """
        for _ in range(_MOST_TRIES):
            project = FIRST_PROJECT - 1 + self._numbers.allot(ref)
            if self._kernel.record(descriptor, project).is_blank:
                return project
            self._numbers.give_up(ref)
        message = f"the next {_MOST_TRIES} projects from {FIRST_PROJECT} on are all in use"
        raise StoreError("disk.failed", message, "'repquota -P' or 'xfs_quota -xc report' shows them")

    def _bound(self, ref: EnvironmentRef, descriptor: int, project: int, size_bytes: int) -> None:
        self._require_room(ref, size_bytes)
        inodes = max(size_bytes // _BYTES_A_INODE, _LEAST_INODES)
        self._kernel.limit(descriptor, project, self._whole(descriptor, size_bytes), inodes)
        os.utime(descriptor)  # the limit is in the log of the file system, which is written up to this change
        os.fsync(descriptor)

    def _require_room(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Refuse what is more than all of the file system. Raises: ConflictError `disk.no-room`."""
        found = os.statvfs(self._place(ref).parent)  # in the directory itself the kernel answers for the project
        whole = found.f_blocks * found.f_frsize
        if size_bytes > whole:
            raise ConflictError(
                "disk.no-room",
                f"{show_size(size_bytes)} do not fit: the file system of {self._state_dir} has {show_about(whole)}",
                "ask for less with --disk",
            )

    def _record(self, descriptor: int | None) -> ProjectRecord:
        """Return what the kernel has of volumes that are a project; blank where they are none, or quotas are off."""
        if descriptor is not None and (project := self._project(descriptor)):
            with suppress(OSError):
                return self._kernel.record(descriptor, project)
        return ProjectRecord()

    def _project(self, descriptor: int) -> int:
        """Return the project of volumes where it is one of ours, else 0: an administrator may have some too."""
        found = self._kernel.project(descriptor)
        return found if FIRST_PROJECT <= found <= LAST_PROJECT else 0

    @staticmethod
    def _whole(descriptor: int, size_bytes: int) -> int:
        """Round a size down to whole blocks, as XFS rounds limits up to them."""
        return size_bytes - size_bytes % os.fstatvfs(descriptor).f_frsize

    @contextmanager
    def _opened(self, ref: EnvironmentRef) -> Iterator[int | None]:
        """Open the directory of the volumes; None where there is none, or none that may be opened."""
        with ExitStack() as stack:
            descriptor = None
            with suppress(OSError):
                descriptor = stack.enter_context(opened(self._place(ref)))
            yield descriptor

    def _place(self, ref: EnvironmentRef) -> Path:
        return Layout.of(self._state_dir, ref).volumes


def _use_of(found: ProjectRecord) -> DiskUse | None:
    if not found.limit_bytes:
        return None
    return DiskUse(found.limit_bytes, found.used_bytes, found.limit_inodes, found.used_inodes)


def _volumes(place: Path) -> list[Path]:
    return [place / name for name in VOLUMES if (place / name).is_dir()]


def _remove_empty(place: Path) -> None:
    try:
        place.rmdir()
    except OSError:
        return


def _failed(exc: OSError, place: Path) -> DevgwError:
    return disk_error(exc, Path(exc.filename or place))
