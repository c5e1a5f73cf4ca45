"""An environment's or a user's directories under another name, while nothing runs in them and nobody begins to.

A rename is one step of the file system; what is cut off between two of them is finished by doing it again.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from gateway.environments.disks import Disks
from gateway.environments.image_disks import DISKS
from gateway.environments.layout import Layout, disk_error
from gateway.environments.locks import EnvironmentLocks
from gateway.errors import ConflictError, DevgwError
from gateway.model import Environment, EnvironmentRef, EnvironmentState, UserName
from gateway.store.environments import EnvironmentTable

_AT_REST = frozenset({EnvironmentState.STOPPED, EnvironmentState.FAILED})


class Relocation:
    """Moves directories, and has the rows changed in between; either both happen or neither."""

    def __init__(self, state_dir: Path, table: EnvironmentTable, locks: EnvironmentLocks, disks: Disks) -> None:
        self._state_dir = state_dir
        self._table = table
        self._locks = locks
        self._disks = disks

    def move_user(self, old: UserName, new: UserName, change: Callable[[], None]) -> None:
        """Give all that is a user's another name. Raises: ConflictError, StoreError, and what `change` raises."""
        kinds = ("environments", "volumes", DISKS)
        places = [(self._state_dir / kind / old, self._state_dir / kind / new) for kind in kinds]
        refs = {*(one.ref for one in self._table.all(old)), *self._disks.all(old), *self._disks.all(new)}
        self._move(sorted(refs), places, change)

    def move_environment(self, old: EnvironmentRef, new: EnvironmentRef, change: Callable[[], None]) -> None:
        """Give one environment another name. Raises: ConflictError, StoreError, and what `change` raises."""
        before, after = Layout.of(self._state_dir, old), Layout.of(self._state_dir, new)
        images = (self._disks.image(old).parent, self._disks.image(new).parent)
        self._move([old, new], [(before.root, after.root), (before.volumes, after.volumes), images], change)

    def _move(
        self, refs: Sequence[EnvironmentRef], places: Sequence[tuple[Path, Path]], change: Callable[[], None]
    ) -> None:
        with ExitStack() as stack:
            for ref in sorted(refs):
                stack.enter_context(self._locks.hold(ref, wait=False))
                found = self._table.get(ref)
                if found is not None:
                    require_at_rest(found)
            for ref in refs:
                self._disks.unmount(ref)  # a mount point cannot be renamed; the next start mounts it
            known = [ref for ref in refs if self._table.get(ref) is not None]
            for before, after in places:
                _require_free(before, after, was_begun=bool(known))
            moved = [(before, after) for before, after in places if os.path.lexists(before)]
            try:
                for before, after in moved:
                    after.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
                    _clear_empty(after)
                    before.rename(after)
                change()
            except (DevgwError, OSError) as exc:
                for before, after in moved:
                    if not os.path.lexists(before) and os.path.lexists(after):
                        after.rename(before)
                if isinstance(exc, OSError):
                    raise disk_error(exc, moved[0][0]) from exc
                raise


def require_at_rest(environment: Environment) -> None:
    """Raises: ConflictError `environment.running`, where it runs, or is being made or removed."""
    if environment.state not in _AT_REST:
        ref = environment.ref
        raise ConflictError("environment.running", f"{ref} is {environment.state}", f"'devgw stop {ref}' first")


def _require_free(before: Path, after: Path, *, was_begun: bool) -> None:
    """Refuse what somebody of that name left; with nothing at the old place, a rename that was cut off has moved it.

    Raises: ConflictError `environment.files-in-the-way`.
    """
    if os.path.lexists(after) and not _is_empty(after) and (os.path.lexists(before) or not was_begun):
        message = f"there are files of somebody of that name in {after}"
        raise ConflictError("environment.files-in-the-way", message, "move them away, or choose another name")


def _is_empty(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink() and not any(place.iterdir())


def _clear_empty(place: Path) -> None:
    if os.path.lexists(place):
        place.rmdir()
