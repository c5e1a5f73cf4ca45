"""The source's side of a move: a user goes to another host, step by step, each done and written down before the next.

The same command again goes on from the last step; before the target has opened its door, a move can be put back
(ADR 0027).
"""

import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from gateway.config import Settings
from gateway.engines.interface import Progress, ignore_progress
from gateway.environments.layout import VOLUMES
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.set_aside import set_aside
from gateway.errors import ConflictError, DevgwError, MoveError, NotFoundError, UsageError
from gateway.model import Environment, EnvironmentRef, EnvironmentState, User, UserName
from gateway.moves.description import Reply
from gateway.moves.other_host import DEVGW, SSH, OtherHost, Target
from gateway.operations.arrival import LOCK
from gateway.operations.environments import EnvironmentOperations
from gateway.operations.recorded import Recorded
from gateway.operations.user_descriptions import UserDescriptions
from gateway.policy import PolicyInForce
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.moves import Move, MoveTable
from gateway.store.moving import leave
from gateway.store.users import Users
from gateway.version import VERSION

MOVED_DIRECTORY = "moved"
_GOODBYE_SECONDS, _LOOK_SECONDS = 5.0, 0.1
_UNSEEN_SECONDS = 1.5
"""For so long may somebody be connected before it is written down: a gateway does that twice a second."""
_AT_REST = frozenset({EnvironmentState.STOPPED, EnvironmentState.FAILED})
_WHOLE = _AT_REST | {EnvironmentState.RUNNING}


class Step(StrEnum):
    """What is done of a move away, in this order; the last two instead of what follows `filled`."""

    BEGUN = "begun"
    ANNOUNCED = "announced"
    RESERVED = "reserved"
    COPIED = "copied"
    CLOSED = "closed"
    STOPPED = "stopped"
    FILLED = "filled"
    MOVED = "moved"
    DONE = "done"
    ABORTING = "aborting"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """What `devgw move` asks for. What is empty is as it was when the move began."""

    user: UserName
    to: str = ""
    reason: str = ""
    ssh: tuple[str, ...] = ()
    devgw: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DepartureParts:
    """What a move away stands on. `connect` gives the target by destination, ssh and devgw command."""

    settings: Settings
    database: Database
    lifecycle: EnvironmentLifecycle
    environment_operations: Callable[[], EnvironmentOperations]
    policy: PolicyInForce
    is_connected: Callable[[UserName], bool]
    runs_here: bool
    connect: Callable[[str, tuple[str, ...], tuple[str, ...]], Target] = OtherHost


@dataclass(frozen=True, slots=True)
class Moved:
    """How a move ended, and what an administrator should know of it."""

    move: Move
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> str:
        return str(self.move.detail.get("kept", ""))

    @property
    def ssh_line(self) -> str:
        return str(self.move.detail.get("ssh_line", ""))


class DepartureOperations:
    """An administrator's acts on users who go to another host."""

    def __init__(self, parts: DepartureParts, recorded: Recorded) -> None:
        self._parts = parts
        self._recorded = recorded
        self._users = Users(parts.database)
        self._table = EnvironmentTable(parts.database)
        self._moves = MoveTable(parts.database)
        self._notes: list[str] = []
        self._said = UserDescriptions(parts.settings, parts.database, parts.lifecycle, parts.policy)

    def check(self, order: MoveOrder) -> Reply:
        """Say whether the user could go; nothing is changed on either host. Raises: as `run`, before it begins."""
        return self._new(order)[1]

    def run(self, order: MoveOrder, progress: Progress = ignore_progress) -> Moved:
        """Move a user, or go on with their move.

        Raises:
            NotFoundError: `user.not-found`.
            ConflictError: `move.going-on`, `move.elsewhere`, `move.busy`, `user.closed`.
            NodeError: an environment that may run on a node which does not answer.
            MoveError: what the target or the way there says; the same command again goes on.
        """
        with self._alone(order.user):
            user = self._users.require(order.user)
            if (gone := self._gone(user, order)) is not None:
                return Moved(gone)
            if not user.move:
                progress("asking the other host")
                with self._recorded.failing("move.begun", user=order.user, other=order.to, why=order.reason):
                    move, reply = self._new(order)
                self._notes += reply.notes
                move = self._moves.begin(move)
            else:
                move = self._continued(order)
            target = self._target_of(move)
            with self._recorded.failing("move.completed", **self._about(move)):
                while move.step != Step.DONE:
                    move = self._step(move, target, progress)
            return Moved(move, tuple(self._notes))

    def abort(self, order: MoveOrder, progress: Progress = ignore_progress, *, without_target: bool = False) -> Moved:
        """Put a user back who is not there yet: the door opens here, and the target forgets them.

        Raises:
            NotFoundError: `move.none`. ConflictError: `move.too-late`. MoveError: as `run`.
        """
        with self._alone(order.user):
            move = self._outgoing(order)
            target = self._target_of(move)
            if move.step == Step.MOVED or (move.step == Step.FILLED and without_target):
                raise _too_late(move)
            with self._recorded.failing("move.aborted", **self._about(move)):
                if move.step == Step.FILLED:
                    progress("asking the other host")
                    target.ask("abort", self._said.named(move))  # it alone knows whether it has opened its door
                if move.step != Step.ABORTING:
                    move = self._moves.advance(move, Step.ABORTING, closed_because="")
                for name in move.detail.get("ran", ()):
                    self._start_again(EnvironmentRef.parse(name), progress)
                if not without_target:
                    progress("having the other host forget it")
                    target.ask("abort", self._said.named(move))
                self._recorded.note("move.aborted", **self._about(move))
                move = self._moves.advance(move, Step.ABORTED, is_over=True)
            return Moved(move, tuple(self._notes))

    def all(self) -> list[Move]:
        """Return who went, or is about to."""
        return self._moves.all("source")

    # Its steps

    def _step(self, move: Move, target: Target, progress: Progress) -> Move:
        """Do what comes after the last step that is done."""
        match move.step:
            case Step.BEGUN:
                self._recorded.note("move.begun", **self._about(move))
                done = self._moves.advance(move, Step.ANNOUNCED)
            case Step.ANNOUNCED:
                done = self._reserve(move, target, progress)
            case Step.RESERVED:
                self._copy(move, target, progress, may_change=True)
                done = self._moves.advance(move, Step.COPIED)
            case Step.COPIED:
                done = self._close(move)
            case Step.CLOSED:
                self._recorded.note("move.closed", **self._about(move))
                self._await_goodbye(move.user)
                self._stop(move, progress)
                done = self._moves.advance(move, Step.STOPPED)
            case Step.STOPPED:
                self._stop(move, progress)
                self._copy(move, target, progress, may_change=False)
                done = self._moves.advance(move, Step.FILLED)
            case Step.FILLED:
                done = self._hand_over(move, target, progress)
            case Step.MOVED:
                done = self._set_aside(move, progress)
            case _:
                hint = f"'devgw move {move.user} --abort' goes on with that"
                raise ConflictError("move.going-on", f"{move.user} is being put back", hint)
        return done

    def _reserve(self, move: Move, target: Target, progress: Progress) -> Move:
        """Have the target keep the name, with empty volumes."""
        progress("having the other host keep the name")
        reply = target.ask("begin", self._said.of(move))
        return self._moves.advance(move, Step.RESERVED, detail={"host": reply.host, "ssh_line": reply.ssh_line})

    def _close(self, move: Move) -> Move:
        """Shut the door, and remember what ran: from here on nothing new begins to run."""
        ran = [str(one.ref) for one in self._table.all(move.user) if one.state not in _AT_REST or one.should_run]
        because = f"you are being moved to {move.detail['host']}; when that is done: {move.detail['ssh_line']}"
        return self._moves.advance(move, Step.CLOSED, closed_because=because, detail={"ran": ran})

    def _await_goodbye(self, user: UserName) -> None:
        """Give a gateway that serves the time to tell whoever is connected why, before their environment ends."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < _GOODBYE_SECONDS:
            if not self._parts.is_connected(user) and passed >= _UNSEEN_SECONDS:
                return
            time.sleep(_LOOK_SECONDS)

    def _stop(self, move: Move, progress: Progress) -> None:
        for environment in self._table.all(move.user):
            if environment.state not in _AT_REST or environment.should_run:
                progress(f"stopping {environment.ref}")
                self._parts.environment_operations().stop(environment.ref)
            self._parts.lifecycle.require_known(environment.ref)

    def _copy(self, move: Move, target: Target, progress: Progress, *, may_change: bool) -> None:
        lifecycle = self._parts.lifecycle
        lifecycle.files.mount_disks(move.user)
        for environment in self._table.all(move.user):
            for volume in VOLUMES:
                directory = lifecycle.files.volume(environment.ref, volume)
                if directory.is_dir():
                    rest = "" if may_change else "the rest of "
                    progress(f"copying {rest}{volume} of {environment.ref}")
                    target.copy(directory, move.id, environment.ref.name, volume, may_change=may_change)

    def _hand_over(self, move: Move, target: Target, progress: Progress) -> Move:
        """Have the target open its door; once it has answered, it is its user."""
        progress("having the other host open the door")
        said = self._said.of(move, is_measured=False)
        reply = target.ask("activate", said)
        detail = {"host": reply.host, "ssh_line": reply.ssh_line}
        because = f"you are on {reply.host} now: {reply.ssh_line}"
        move = self._moves.advance(move, Step.MOVED, closed_because=because, detail=detail)
        now = self._said.of(move, is_measured=False)
        if (now.keys, now.disabled) != (said.keys, said.disabled):
            self._notes.append(
                f"keys of {move.user}, or whether they are disabled, changed here just now: do so there too"
            )
        return move

    def _set_aside(self, move: Move, progress: Progress) -> Move:
        """Keep what was here out of everybody's way, and forget the environments."""
        progress("setting aside what was here")
        user = self._users.require(move.user)
        environments = self._table.all(move.user)
        refs = [one.ref for one in environments]
        place = self._parts.settings.state_dir / MOVED_DIRECTORY / f"{move.user}-{move.id[:12]}"
        about = self._kept(move, user, environments)
        set_aside(self._parts.settings.state_dir, user.name, place, about, self._parts.lifecycle)
        others = _others(place / "volumes", {ref.name for ref in refs})
        for ref in refs:
            self._recorded.note("environment.deleted", str(ref), purged=False, move=move.id)
        self._recorded.note("move.completed", **self._about(move), kept=str(place))
        self._notes += [f"files of {move.user}+{name}, which was deleted, stay here in {place}" for name in others]
        return leave(self._parts.database, move, refs, {"kept": str(place)})

    def _kept(self, move: Move, user: User, environments: list[Environment]) -> Mapping[str, Any]:
        """Return the `user.json` of what is set aside, as an archive has it."""
        return {
            "version": 1,
            "user": asdict(user),
            "keys": [asdict(key) for key in self._users.keys(user.name)],
            "environments": [asdict(one) for one in environments],
            "move": {"id": move.id, "to": move.other, "ssh_line": move.detail.get("ssh_line", "")},
        }

    def _start_again(self, ref: EnvironmentRef, progress: Progress) -> None:
        """Start what ran before; where that fails the person can do it, and the move is put back all the same."""
        try:
            progress(f"starting {ref}")
            self._parts.environment_operations().start(ref)
        except DevgwError as exc:
            self._notes.append(f"{ref} does not run again: {exc.message}")

    def _gone(self, user: User, order: MoveOrder) -> Move | None:
        """Return the move that is asked for and done: a command that was killed behind its last step says so too."""
        last = self._moves.last_away(user.name) if user.closed_because and not user.move else None
        return last if last is not None and last.step == Step.DONE and order.to in {"", last.other} else None

    # Its beginning

    def _new(self, order: MoveOrder) -> tuple[Move, Reply]:
        """Return a move that both hosts could make. Raises: as `run`."""
        user = self._users.require(order.user)
        if user.closed_because:
            hint = f"'devgw user delete {user.name}' forgets them here"
            raise ConflictError("user.closed", f"{user.name} is not here: {user.closed_because}", hint)
        if user.move:
            self._continued(order)
        if not order.to:
            raise UsageError("move.bad-target", f"--to says where {user.name} goes", "--to root@gpu2.example.org")
        self._require_movable(user.name)
        self._parts.lifecycle.files.mount_disks(user.name)
        move_id, words = secrets.token_hex(16), {"ssh": list(order.ssh or SSH), "devgw": list(order.devgw or DEVGW)}
        by = self._recorded.actor.name
        move = Move(move_id, "source", user.name, order.to, Step.BEGUN, order.reason, by, detail=words)
        reply = self._target_of(move).ask("check", self._said.of(move))
        if _numbers(reply.devgw) < _numbers(VERSION):
            message = f"{order.to} has devgw {reply.devgw}, and this is {VERSION}: rows of a newer one are none of its"
            raise MoveError("move.older", message, "bring devgw there to this version first")
        return move, reply

    def _require_movable(self, user: UserName) -> None:
        if not self._parts.runs_here:
            message = f"the files of {user} are in the cluster, and nobody is moved out of one"
            raise MoveError("move.files-elsewhere", message, "'devgw create' there, and rsync through both gateways")
        for environment in self._table.all(user):
            ref = environment.ref
            self._parts.lifecycle.require_known(ref)
            if environment.state not in _WHOLE:
                hint = f"'devgw show {ref}' says more; 'devgw delete {ref}' ends what was cut off"
                raise ConflictError("move.unsettled", f"{ref} is {environment.state}", hint)

    def _continued(self, order: MoveOrder) -> Move:
        """Return the move that is going on, with what the order says anew of the way there."""
        move = self._outgoing(order)
        if order.to and order.to != move.other:
            hint = f"'devgw move {order.user} --abort' first"
            raise ConflictError("move.elsewhere", f"{order.user} is being moved to {move.other}", hint)
        return move

    def _outgoing(self, order: MoveOrder) -> Move:
        """Return a user's move away that is going on. Raises: NotFoundError, ConflictError."""
        self._users.require(order.user)
        move = self._moves.going_on(order.user)
        if move is None:
            hint = f"'devgw move {order.user} --to HOST' begins one"
            raise NotFoundError("move.none", f"no move of {order.user} is going on", hint)
        if move.side != "source":
            hint = f"'devgw move-in abort {move.id}' gives them up here"
            raise ConflictError("move.going-on", f"{order.user} is arriving here from {move.other}", hint)
        words = {"ssh": list(order.ssh)} if order.ssh else {}
        words |= {"devgw": list(order.devgw)} if order.devgw else {}
        return replace(move, detail={**move.detail, **words})

    def _target_of(self, move: Move) -> Target:
        return self._parts.connect(move.other, tuple(move.detail["ssh"]), tuple(move.detail["devgw"]))

    @staticmethod
    def _about(move: Move) -> dict[str, str]:
        return {
            "user": move.user, "move": move.id, "side": "source", "other": move.other, "by": move.by,
            "why": move.reason,
        }  # fmt: skip

    @contextmanager
    def _alone(self, user: UserName) -> Iterator[None]:
        """One command at a time moves a user. Raises: ConflictError `move.busy`."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._parts.lifecycle.locks.hold(EnvironmentRef(user, LOCK), wait=False))
            except ConflictError as exc:
                raise ConflictError("move.busy", f"another command is moving {user}", "wait for it") from exc
            yield


def _too_late(move: Move) -> ConflictError:
    hint = f"'devgw move {move.user}' goes on; then move them back from there"
    return ConflictError("move.too-late", f"{move.user} is, or may be, on {move.other} already", hint)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", version))


def _others(volumes: Path, known: Collection[str]) -> list[str]:
    """Return the names of environments that were deleted and whose files are still there."""
    return sorted(place.name for place in volumes.iterdir() if place.name not in known) if volumes.is_dir() else []
