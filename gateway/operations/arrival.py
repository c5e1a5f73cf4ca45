"""The target's side of a move: a user from another host gets a name, files, keys and history here, and then the door.

Each step is one transaction that is done once; asking for it again answers as the first time (ADR 0027).
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.config import Settings
from gateway.environments.connection import Connection, public_host
from gateway.environments.image_disks import DISKS
from gateway.environments.layout import disk_error
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.errors import ConflictError, MoveError, NotFoundError
from gateway.gate import Gate
from gateway.gpu_requests import parse_gpu_request
from gateway.model import (
    Egress,
    Environment,
    EnvironmentName,
    EnvironmentRef,
    EnvironmentState,
    Fingerprint,
    Limits,
    PublicKey,
    UserName,
    parse_user_name,
)
from gateway.moves.description import Description, EnvironmentSaid, Reply
from gateway.operations.environments import ImageChoice
from gateway.operations.receiving import Receiver
from gateway.operations.recorded import Recorded
from gateway.policy import PolicyInForce
from gateway.removal import remove_tree
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.moves import Move, MoveTable
from gateway.store.moving import Belongings, forget, has_history, place, reserve
from gateway.store.users import Users
from gateway.version import VERSION
from policies.quantities import show_about
from policies.requests import CreateRequest, Subject

HELD, RESERVED, PLACED, ARRIVED = "held", "reserved", "placed", "arrived"
ABORTING, ABORTED = "aborting", "aborted"
LOCK = EnvironmentName("=move")
"""The name of the lock that all of a user's move is made under; no environment can have it."""


@dataclass(frozen=True, slots=True)
class ArrivalParts:
    """What receiving a user stands on. `room_bytes` is what this host has for files, None where others give it."""

    settings: Settings
    database: Database
    lifecycle: EnvironmentLifecycle
    images: ImageChoice
    gate: Gate
    policy: PolicyInForce
    receiver: Callable[[], Receiver]
    engine_name: Callable[[], str]
    runs_here: bool

    @property
    def state_dir(self) -> Path:
        return self.settings.state_dir


class ArrivalOperations:
    """What `devgw move` asks of its target."""

    def __init__(self, parts: ArrivalParts, recorded: Recorded) -> None:
        self._parts = parts
        self._recorded = recorded
        self._users = Users(parts.database)
        self._table = EnvironmentTable(parts.database)
        self._moves = MoveTable(parts.database)

    def check(self, said: Description) -> Reply:
        """Say whether the user could come, and change nothing.

        Raises:
            ConflictError, NotFoundError, DeniedError, MoveError: why not.
        """
        user = parse_user_name(said.user)
        known = self._moves.get(said.id)
        if known is None:
            self._require_free(user)
            self._require_room(said)
        return self._reply(said, known, self._require_permitted(said))

    def begin(self, said: Description) -> Reply:
        """Keep the name, and have a place for every file. Raises: as `check`; StoreError."""
        user = parse_user_name(said.user)
        with self._alone(user):
            move = self._moves.get(said.id)
            if move is None:
                self._require_free(user)
                self._require_room(said)
                notes = self._require_permitted(said)
                why = f"you are being moved here from {said.source}, and are not here yet"
                move = Move(said.id, "target", user, said.source, HELD, said.reason, said.by)
                with self._recorded.failing("move.begun", **_about(said)):
                    rows = [self._row(user, one, is_filled=True) for one in said.environments]
                    reserve(self._parts.database, move, rows, self._parts.settings.environments.uid_start, why)
            else:
                notes = ()
            move = self.require(said.id)
            if move.step == HELD:
                self._recorded.note("move.begun", **_about(said))
                move = self._moves.advance(move, RESERVED)
            if move.step == RESERVED:
                for one in said.environments:
                    ref = EnvironmentRef(user, EnvironmentName(one.name))
                    self._parts.lifecycle.files.prepare(ref, one.password_hash)
            _refuse_aborted(move)
            return self._reply(said, move, notes)

    def receive(self, move_id: str, environment: str, volume: str, arguments: Sequence[str]) -> int:
        """Be rsync's other end; return its exit code. Raises: NotFoundError, ConflictError, UsageError, MoveError."""
        move = self.require(move_id)
        with self._alone(move.user):
            move = self.require(move_id)
            if move.step != RESERVED:
                message = f"{move.user} is {move.step} here already: no more files are taken"
                raise ConflictError("move.too-late", message, f"'devgw move {move.user}' on {move.other}")
            ref = EnvironmentRef(move.user, EnvironmentName(environment))
            self._table.require(ref)
            return self._parts.receiver().receive(ref, volume, arguments)

    def activate(self, said: Description) -> Reply:
        """Give the user all that is theirs, and open the door: from now on they are here.

        Raises: NotFoundError, ConflictError `move.too-late`, MoveError, StoreError.
        """
        with self._alone(UserName(said.user)):
            move = self.require(said.id)
            if move.user != said.user:
                raise MoveError("move.bad-description", f"move {move.id} is {move.user}'s, not {said.user}'s")
            _refuse_aborted(move)
            with self._recorded.failing("move.completed", **_about(said)):
                if move.step == RESERVED:
                    move = self._place(move, said)
                if move.step == PLACED:
                    for code, environment, detail in move.detail["records"]:
                        self._recorded.note(code, environment, **detail)
                    move = self._moves.advance(move, ARRIVED, closed_because="", is_over=True)
            return self._reply(said, move, ())

    def abort(self, move_id: str) -> Move | None:
        """Give back all that was kept for somebody who does not come; a move that is not known never began.

        Raises: ConflictError `move.too-late`; DevgwError, where something cannot be removed.
        """
        move = self._moves.get(move_id)
        if move is None or move.side != "target" or move.step == ABORTED:
            return move
        with self._alone(move.user):
            move = self.require(move_id)
            if move.step in {PLACED, ARRIVED}:
                message = f"{move.user} has moved here: it is too late to put them back"
                hint = f"'devgw move {move.user}' on {move.other} finishes it; then move them back"
                raise ConflictError("move.too-late", message, hint)
            with self._recorded.failing("move.aborted", user=move.user, move=move.id):
                if move.step in {HELD, RESERVED}:
                    move = self._moves.advance(move, ABORTING)
                if move.step == ABORTING:
                    self._remove_files(move.user)
                    self._recorded.note("move.aborted", user=move.user, move=move.id, other=move.other)
                    move = forget(self._parts.database, move, is_new=bool(move.detail.get("is_new")))
        return move

    def all(self) -> list[Move]:
        """Return who arrived, or is about to."""
        return self._moves.all("target")

    def _place(self, move: Move, said: Description) -> Move:
        """Step `placed`: files first, which may be written twice, then everything else at once."""
        refs = [EnvironmentRef(move.user, EnvironmentName(one.name)) for one in said.environments]
        if {one.ref for one in self._table.all(move.user)} != set(refs):
            hint = f"'devgw move {move.user} --abort' on {move.other}, then begin anew"
            raise ConflictError("move.changed", f"{move.user} has other environments by now", hint)
        for ref, one in zip(refs, said.environments, strict=True):
            self._parts.receiver().finish(ref)
            self._parts.lifecycle.files.prepare(ref, one.password_hash)
        had = {str(key.fingerprint) for key in self._users.keys(move.user)}
        keys = tuple(
            PublicKey(
                Fingerprint(key.fingerprint), key.algorithm, key.bits, key.line, key.comment, key.added_at,
                key.last_used_at,
            )
            for key in said.keys
        )  # fmt: skip
        belongings = Belongings(keys, said.share, said.history, said.disabled)
        rows = [self._row(move.user, one, is_filled=False) for one in said.environments]
        records = self._records(move, said, had)
        return place(self._parts.database, move, rows, belongings, {"records": records})

    def _records(self, move: Move, said: Description, had: set[str]) -> list[tuple[str, str, dict[str, str]]]:
        """Return what the journal will say, kept with the step so that it is the same whenever it is written."""
        user, records = {"user": str(move.user), "move": move.id}, list[tuple[str, str, dict[str, str]]]()
        if move.detail.get("is_new"):
            records.append(("user.created", "", user))
        now = {key.fingerprint for key in said.keys}
        records += [("key.removed", "", user | {"fingerprint": one}) for one in sorted(had - now)]
        for key in said.keys:
            if key.fingerprint not in had:
                about = {"fingerprint": key.fingerprint, "algorithm": key.algorithm, "bits": str(key.bits)}
                records.append(("key.added", "", user | about))
        if said.disabled and not self._users.require(move.user).disabled:
            records.append(("user.disabled", "", user))
        for one in said.environments:
            ref = EnvironmentRef(move.user, EnvironmentName(one.name))
            detail = {"image": one.image, "gpus": one.gpu_request, "datasets": ",".join(one.datasets)}
            records.append(("environment.created", str(ref), detail | {"move": move.id}))
        records.append(("move.completed", "", _about(said)))
        return records

    def _remove_files(self, user: UserName) -> None:
        for environment in self._table.all(user):
            self._parts.lifecycle.delete(environment.ref, force=True, purge=True, actor=self._recorded.actor)
        for kind in ("volumes", DISKS, "environments"):
            try:
                remove_tree(self._parts.state_dir / kind / user)
            except OSError as exc:
                raise disk_error(exc, self._parts.state_dir / kind / user) from exc

    def _row(self, user: UserName, said: EnvironmentSaid, *, is_filled: bool) -> Environment:
        """Return an environment's row; while it is filled it gets no GPU."""
        return Environment(
            ref=EnvironmentRef(user, EnvironmentName(said.name)),
            state=EnvironmentState.STOPPED,
            engine=self._parts.engine_name(),
            image=self._parts.images.canonical(said.image),
            limits=Limits(said.memory_bytes, said.cpus, said.pids, said.shm_bytes, said.disk_bytes),
            gpu_request="0" if is_filled else said.gpu_request,
            gpus=(),
            datasets=said.datasets,
            egress=Egress(said.egress),
            created_at=said.created_at,
            should_run=False,
            detail="it arrives from another host" if is_filled else "",
            last_active_at=said.last_active_at,
        )

    def _require_free(self, user: UserName) -> None:
        """Refuse a name that is somebody's, or was: files and records of two people are never mixed."""
        found = self._users.get(user)
        if found is not None and (found.move or not found.closed_because):
            raise ConflictError("user.exists", f"there is a user {user} already", "rename one of the two first")
        for kind in ("volumes", DISKS):
            directory = self._parts.state_dir / kind / user
            if directory.is_dir() and any(directory.iterdir()):
                message = f"there are files of somebody of that name in {directory}"
                raise ConflictError("environment.files-in-the-way", message, "move them away, or choose another name")
        if found is None and has_history(self._parts.database, user):
            message = f"somebody called {user} used GPUs before, which is on record"
            raise ConflictError("user.name-used", message, "rename them first, then move them")

    def _require_room(self, said: Description) -> None:
        needed = sum(sum(one.volume_bytes.values()) for one in said.environments)
        settings = self._parts.settings
        if self._parts.runs_here:
            if shutil.which("rsync") is None:
                raise MoveError("move.no-rsync", "files are moved by rsync, which is not here", "install rsync")
            free = shutil.disk_usage(settings.state_dir).free
            if needed > free:
                message = f"{said.user} has files of {show_about(needed)}, and there is room for "
                message += show_about(free)
                raise MoveError("move.no-space", message, f"make room in {settings.state_dir}")
            return
        for one in said.environments:
            for volume, size in one.volume_bytes.items():
                name = "home_size" if volume == "home" else "work_size"
                most = int(getattr(settings.kubernetes, name))
                if size > most:
                    message = f"{volume} of {one.name} has {show_about(size)}, and a claim {show_about(most)}"
                    raise MoveError("move.no-space", message, f"kubernetes.{name} says how large claims are made")

    def _require_permitted(self, said: Description) -> tuple[str, ...]:
        """Have the policy here decide on each environment; return what the administrator should know."""
        user, notes = UserName(said.user), list[str]()
        known = self._parts.settings.datasets
        for number, one in enumerate(said.environments):
            for name in one.datasets:
                if name not in known:
                    hint = f"datasets here: {', '.join(sorted(known)) or 'none'}"
                    raise NotFoundError("dataset.not-found", f"no dataset {name!r}", hint)
            self._require_create(user, one, number)
            if one.disk_bytes and (reason := self._parts.lifecycle.disks.why_not()):
                notes.append(f"nothing enforces the size of the disk of {one.name} there: {reason}")
        roles = self._roles(user)
        if roles != said.roles:
            was, now = ", ".join(said.roles) or "none", ", ".join(roles) or "none"
            notes.append(f"the policy gives {user} the roles {now} there, and {was} here")
        return tuple(notes)

    def _require_create(self, user: UserName, said: EnvironmentSaid, others: int) -> None:
        parts = self._parts
        asked, image = parse_gpu_request(said.gpu_request), parts.images.canonical(said.image)
        request = CreateRequest(
            subject=Subject(user=user),
            at=datetime.now(UTC),
            image=image,
            memory_bytes=said.memory_bytes,
            cpus=said.cpus,
            gpus=asked.count,
            gpu_profiles=asked.profiles,
            environments=others,
            gpus_held=0,
            datasets=said.datasets,
            egress=Egress(said.egress),
            lifetime_seconds=parts.policy.allowance(user).lifetime_seconds,
            image_digest=parts.images.choose(image).digest,
            disk_bytes=said.disk_bytes,
        )
        parts.gate.require(request, self._recorded.actor, str(EnvironmentRef(user, EnvironmentName(said.name))))

    def _roles(self, user: UserName) -> tuple[str, ...]:
        return roles_of(self._parts.policy, user)

    def _reply(self, said: Description, move: Move | None, notes: tuple[str, ...]) -> Reply:
        settings, user = self._parts.settings, self._users.get(said.user)
        return Reply(
            devgw=VERSION,
            step="" if move is None else move.step,
            host=public_host(settings),
            ssh_line=Connection.of(settings, EnvironmentRef(UserName(said.user))).ssh_line,
            uid=0 if user is None else user.uid,
            notes=notes,
        )

    def require(self, move_id: str) -> Move:
        """Return a move to this host. Raises: NotFoundError `move.not-found`."""
        move = self._moves.require(move_id)
        if move.side != "target":
            message = f"move {move_id} goes away from here, and would come back to the same gateway"
            raise MoveError("move.same-site", message, "name another host's gateway")
        return move

    @contextmanager
    def _alone(self, user: UserName) -> Iterator[None]:
        """Wait for whoever is still at it, such as a question whose asker was killed."""
        with self._parts.lifecycle.locks.hold(EnvironmentRef(user, LOCK)):
            yield


def roles_of(policy: PolicyInForce, user: UserName) -> tuple[str, ...]:
    """Return the names of the roles that a policy gives a user now."""
    effective = policy.policy.holders.effective_roles(user, datetime.now(UTC))
    return tuple(sorted({held.name for held in effective.held}))


def _about(said: Description) -> dict[str, str]:
    """Return what both journals say of a move, but for the side and the other host."""
    return {
        "user": said.user, "move": said.id, "side": "target", "other": said.source, "by": said.by, "why": said.reason,
    }  # fmt: skip


def _refuse_aborted(move: Move) -> None:
    if move.step in {ABORTING, ABORTED}:
        message = f"this move of {move.user} was put back"
        raise ConflictError("move.aborted", message, f"'devgw move {move.user} --abort' on {move.other}, then anew")
