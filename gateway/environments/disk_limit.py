"""What keeps an environment's disk at its size, whichever way that is done: `quota_disks`, `image_disks`.

Every call is made under the environment's lock, and does again what an earlier one was cut off in.
"""

from dataclasses import dataclass
from typing import Protocol

from gateway.errors import ConflictError
from gateway.model import EnvironmentRef
from policies.quantities import show_about, show_size

LEAST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What of a disk is used: bytes and inodes, and how many there are."""

    size_bytes: int
    used_bytes: int
    inodes: int
    used_inodes: int

    @property
    def percent(self) -> int:
        """Of bytes or inodes, whatever is nearer to its end; rounded down."""
        return max(self.percent_of_bytes, self.percent_of_inodes)

    @property
    def percent_of_bytes(self) -> int:
        return 100 * self.used_bytes // max(1, self.size_bytes)

    @property
    def percent_of_inodes(self) -> int:
        return 100 * self.used_inodes // max(1, self.inodes)


@dataclass(frozen=True, slots=True)
class DiskState:
    """What there is to say of an environment's disk. `size_bytes` 0: it has no size of its own."""

    size_bytes: int
    use: DiskUse | None
    kept_by: str
    """What keeps the size; empty where nothing does."""
    why_not: str
    """Why nothing keeps it; empty where something does, or where there is no size to keep."""

    @property
    def text(self) -> str:
        """Say it in a line."""
        if not self.size_bytes:
            return "no size of its own: nothing bounds what its volumes hold"
        if not self.kept_by:
            return f"{show_about(self.size_bytes)}, not enforced: {self.why_not}"
        return f"{show_about(self.size_bytes)}, {self._used}, kept by {self.kept_by}"

    @property
    def short(self) -> str:
        """Say it in a cell of a table: `50GiB 81%`."""
        if not self.size_bytes:
            return "-"
        size = show_about(self.size_bytes)
        if not self.kept_by:
            return f"{size} not enforced"
        return f"{size} {self.use.percent}%" if self.use else size

    @property
    def document(self) -> dict[str, int | str | bool | None]:
        """Return it under the names of JSON version 1."""
        use = self.use
        return {
            "disk_bytes": self.size_bytes or None,
            "disk_used_bytes": use.used_bytes if use else None,
            "disk_used_percent": use.percent if use else None,
            "disk_inodes": use.inodes if use else None,
            "disk_used_inodes": use.used_inodes if use else None,
            "disk_is_enforced": bool(self.kept_by),
            "disk_kept_by": self.kept_by or None,
            "disk_why_not": self.why_not or None,
        }

    @property
    def _used(self) -> str:
        if self.use is None:
            return "not mounted"
        used, size = show_about(self.use.used_bytes), show_about(self.use.size_bytes)
        return f"{used} of {size} used, {self.use.used_inodes} of {self.use.inodes} inodes"


class DiskLimit(Protocol):
    """One way to keep sizes. What it raises is as `disks.Disks` says."""

    kept_by: str
    """How people call it."""

    def why_not(self) -> str:
        """Say why this host cannot do it; empty where it can."""

    def has(self, ref: EnvironmentRef) -> bool:
        """Say whether an environment's disk is kept this way, or was about to be."""

    def prepare(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Have it as it must be before the environment starts. 0: as it is."""

    def grow(self, ref: EnvironmentRef, size_bytes: int, *, in_use: bool) -> None:
        """Give it another size, or its first."""

    def require_no_shrink(self, ref: EnvironmentRef, size_bytes: int) -> None:
        """Refuse a size that it cannot be given."""

    def size(self, ref: EnvironmentRef) -> int:
        """Return its size; 0 where it has none."""

    def use(self, ref: EnvironmentRef) -> DiskUse | None:
        """Return what is used of it, where that is known."""

    def uses(self) -> dict[EnvironmentRef, DiskUse]:
        """Return what is used of each."""

    def release(self, ref: EnvironmentRef) -> None:
        """Let go of it with its environment; files stay, and the size of what holds files."""

    def unmount(self, ref: EnvironmentRef) -> None:
        """Leave nothing that keeps its directory from being renamed."""

    def remove(self, ref: EnvironmentRef) -> None:
        """Remove it for good."""

    def all(self, user: str = "*") -> list[EnvironmentRef]:
        """Return whose disks are kept this way, those of deleted environments too."""


def stop_first(ref: EnvironmentRef, why: str) -> ConflictError:
    """Say that something cannot be done while the environment runs."""
    return ConflictError("environment.running", f"{ref} runs, and {why}", f"'devgw stop {ref}' first")


def require_size(size_bytes: int) -> None:
    """Refuse what is no size for a disk. Raises: ConflictError `disk.too-small`."""
    if size_bytes < LEAST_BYTES:
        message = f"{show_size(size_bytes)} are too little for a disk"
        raise ConflictError("disk.too-small", message, f"at least {show_size(LEAST_BYTES)}")


def refuse_shrink(ref: EnvironmentRef, size_bytes: int, size_now: int, use: DiskUse | None) -> ConflictError:
    """Say with the numbers that a disk does not get smaller."""
    used = f", {show_size(use.used_bytes - use.used_bytes % 2**20)} of them used" if use else ""
    return ConflictError(
        "disk.no-shrink",
        f"the disk of {ref} has {show_size(size_now)}{used}: it cannot be made {show_size(size_bytes)}",
        "disks only grow; 'devgw backup --volumes', purge and create make a smaller one",
    )
