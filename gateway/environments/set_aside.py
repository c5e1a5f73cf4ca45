"""Keeps what somebody had here who is on another host now: moved aside on the same disk, which asks for no room.

A rename is one step of the file system; what is cut off between two of them is finished by doing it again.
"""

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gateway.environments.account import swap_in
from gateway.environments.image_disks import DISKS
from gateway.environments.layout import disk_error
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.errors import ConflictError
from gateway.model import UserName
from gateway.removal import remove_tree

ABOUT = "user.json"


def set_aside(
    state_dir: Path, user: UserName, place: Path, about: Mapping[str, Any], lifecycle: EnvironmentLifecycle
) -> None:
    """Move a user's volumes and disks to a directory for administrators, with `user.json`; sockets and keys go.

    Raises:
        ConflictError: `environment.busy`; `environment.files-in-the-way`.
        StoreError: what the disk says.
    """
    kinds = ("volumes", DISKS)
    with ExitStack() as stack:
        for ref in (refs := lifecycle.disks.all(user)):
            stack.enter_context(lifecycle.locks.hold(ref, wait=False))
        for ref in refs:
            lifecycle.disks.unmount(ref)
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.parent.chmod(0o700)
            if not (place / ABOUT).exists():
                swap_in(
                    place / ABOUT, json.dumps(about, indent=1, default=str) + "\n", 0o600, os.geteuid(), os.getegid()
                )
            for kind in kinds:
                _move(state_dir / kind / user, place / kind)
            remove_tree(state_dir / "environments" / user)
        except OSError as exc:
            raise disk_error(exc, place) from exc


def _move(before: Path, after: Path) -> None:
    if not before.is_dir() or not any(before.iterdir()):
        return
    if after.exists():
        message = f"there are files in {before} again, and {after} has those from before"
        raise ConflictError("environment.files-in-the-way", message, f"look whose {before} is, and move it away")
    before.rename(after)
    parent = os.open(after.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
