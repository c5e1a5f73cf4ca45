"""Project quotas without a kernel that has them: marks are kept by inode, and use is counted when it is asked for.

What it cannot do is refuse a write; that is tried in the guest of `tests/quota`.
"""

import os
from pathlib import Path

from gateway.environments.project_quota import KernelQuotas, ProjectRecord

_Identity = tuple[int, int]


class FakeQuotas(KernelQuotas):
    """`reason` says why there are none; a project that is not in `limits` has none."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        self.projects: dict[_Identity, int] = {}
        self.giving: dict[_Identity, Path] = {}
        self.limits: dict[int, tuple[int, int]] = {}

    def why_not(self, place: Path) -> str:
        return self.reason

    def record(self, descriptor: int, project: int) -> ProjectRecord:
        if self.reason:
            raise OSError(3, self.reason)
        size_bytes, inodes = self.limits.get(project, (0, 0))
        self._pass_on()
        found = [path.lstat() for path in self._below(descriptor)]
        mine = {one.st_ino: one for one in found if self.projects.get((one.st_dev, one.st_ino)) == project}
        return ProjectRecord(size_bytes, sum(one.st_blocks * 512 for one in mine.values()), inodes, len(mine))

    def limit(self, descriptor: int, project: int, size_bytes: int, inodes: int) -> None:
        self.limits[project] = (size_bytes, inodes)

    def project(self, descriptor: int) -> int:
        self._pass_on()
        return self.projects.get(_identity(descriptor), 0)

    def gives(self, descriptor: int, project: int) -> bool:
        return self.project(descriptor) == project and _identity(descriptor) in self.giving

    def mark(self, descriptor: int, project: int, *, inherited: bool) -> None:
        self.projects[_identity(descriptor)] = project
        self.giving.pop(_identity(descriptor), None)
        if inherited:
            self.giving[_identity(descriptor)] = Path(f"/proc/self/fd/{descriptor}").readlink()

    def _pass_on(self) -> None:
        """Give what was made in a directory since then its project."""
        for identity, place in list(self.giving.items()):
            for path in (place, *place.rglob("*")) if place.is_dir() else ():
                found = path.lstat()
                self.projects.setdefault((found.st_dev, found.st_ino), self.projects[identity])

    @staticmethod
    def _below(descriptor: int) -> list[Path]:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        return [place, *place.rglob("*")]


def _identity(descriptor: int) -> _Identity:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
