"""Volumes that several users share: a directory each, of a group that only its members' environments are in.

Who has one is asked of the policy each time an environment starts, and the answer is journaled: `shared.allowed` or
`shared.denied`, with the rule. A running environment keeps what it started with.

What is made in one belongs to the group whatever the umask of its maker (setgid, and an ACL that new files inherit).
Nobody else can enter it. devgw makes it when the first member's environment starts, and removes none.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from gateway.environments.layout import disk_error
from gateway.errors import StoreError
from gateway.gate import Gate
from gateway.model import Actor, EnvironmentRef, Mount, UserName
from policies.limits import Allowance
from policies.requests import SharedRequest, Subject
from policies.shared import SharedVolume

SHARED = "shared"
_GIDS_AFTER_UIDS = 1_000_000  # so that the group of a user, which has their uid's number, is never one of these
_MODE = 0o2770
_ACL, _ACL_VERSION, _NO_ID = "system.posix_acl_default", 2, 0xFFFFFFFF
_OWNER, _GROUP, _OTHER = 0x01, 0x04, 0x20  # ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_OTHER of acl(5)
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class SharedDirectory:
    """One as an environment gets it: where it lies on the host, whose group it is, and whether it may be written to."""

    name: str
    directory: Path
    gid: int
    is_writable: bool

    @property
    def mount(self) -> Mount:
        return Mount(self.directory, f"/{SHARED}/{self.name}", read_only=not self.is_writable)


class SharedVolumes:
    """Those of one gateway."""

    def __init__(self, state_dir: Path, uid_start: int) -> None:
        self._place = state_dir / SHARED
        self._first_gid = uid_start + _GIDS_AFTER_UIDS

    def have(self, volumes: Iterable[SharedVolume]) -> tuple[SharedDirectory, ...]:
        """Return the directories of these volumes, made where they are not there. Raises: StoreError."""
        return tuple(self._have(volume) for volume in volumes)

    def _have(self, volume: SharedVolume) -> SharedDirectory:
        directory = self._place / volume.name
        try:
            if not directory.is_dir():
                self._make(directory)
            gid = directory.stat().st_gid
        except OSError as exc:
            raise disk_error(exc, directory) from exc
        if os.geteuid() == 0 and gid < self._first_gid:  # root's, a user's own, or one of the host's
            raise StoreError(
                "shared.foreign-group",
                f"the shared volume {volume.name} belongs to group {gid}, in which nobody may be",
                f"give it one of its own, as root: 'chgrp -R {self._free_gid()} {directory}'",
            )
        return SharedDirectory(volume.name, directory, gid, volume.is_writable)

    def _make(self, directory: Path) -> None:
        """Make it under its name with all its rights, one process at a time, so that no two have one group."""
        self._place.mkdir(exist_ok=True, mode=0o700)
        lock = os.open(self._place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if directory.is_dir():
                return
            partial = self._place / f".{directory.name}.new"
            partial.mkdir(exist_ok=True, mode=0o700)
            if os.geteuid() == 0:
                os.chown(partial, 0, self._free_gid())
            partial.chmod(_MODE)
            _let_the_group_write_what_is_made_in(partial)
            partial.rename(directory)
        finally:
            os.close(lock)

    def _free_gid(self) -> int:
        taken = [place.stat().st_gid for place in self._place.iterdir() if place.is_dir()]
        return max([self._first_gid - 1, *taken]) + 1


class SharingPolicy(Protocol):
    """Which shared volumes the roles of a user name, with the strongest right, before any is denied; and without."""

    def shared_named(self, user: UserName) -> tuple[SharedVolume, ...]: ...

    def allowance(self, user: UserName) -> Allowance: ...


class Sharing(Protocol):
    """What the lifecycle asks about shared volumes."""

    def given(self, user: UserName) -> Sequence[SharedDirectory]:
        """Return what a start now would give, and write nothing about it. Raises: StoreError."""

    def decide(self, ref: EnvironmentRef, actor: Actor) -> Sequence[SharedDirectory]:
        """Return what a start gives, after it was journaled. Raises: StoreError, JournalError."""


class NothingShared:
    """For gateways without a policy."""

    def given(self, user: UserName) -> Sequence[SharedDirectory]:  # noqa: ARG002 - nobody has any
        return ()

    def decide(self, ref: EnvironmentRef, actor: Actor) -> Sequence[SharedDirectory]:  # noqa: ARG002 - nobody has any
        return ()


class SharedByPolicy:
    """Each volume that a role names is a question to the gate."""

    def __init__(self, volumes: SharedVolumes, policy: SharingPolicy, gate: Gate) -> None:
        self._volumes = volumes
        self._policy = policy
        self._gate = gate

    def given(self, user: UserName) -> Sequence[SharedDirectory]:
        return self._volumes.have(self._policy.allowance(user).shared)

    def decide(self, ref: EnvironmentRef, actor: Actor) -> Sequence[SharedDirectory]:
        subject, now = Subject(user=ref.user), datetime.now(UTC)
        allowed = [
            volume
            for volume in self._policy.shared_named(ref.user)
            if self._gate.ask(
                SharedRequest(subject, now, volume.name, writes=volume.is_writable), actor, str(ref)
            ).allowed
        ]
        return self._volumes.have(allowed)


def groups_of(shared: Iterable[SharedDirectory]) -> tuple[int, ...]:
    """Return the groups that a member's processes are in; a gateway that is not root can give none, and needs none."""
    return tuple(one.gid for one in shared) if os.geteuid() == 0 else ()


def _let_the_group_write_what_is_made_in(directory: Path) -> None:
    """Set the default ACL; on a file system without ACLs what members make has the mode that their umask gives."""
    entries = [(_OWNER, 7, _NO_ID), (_GROUP, 7, _NO_ID), (_OTHER, 0, _NO_ID)]
    value = struct.pack("<I", _ACL_VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(directory, _ACL, value)
    except OSError as exc:
        if exc.errno != errno.EOPNOTSUPP:
            raise
