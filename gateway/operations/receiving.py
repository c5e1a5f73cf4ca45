"""Takes a volume's files from another host: `rsync --server`, as their user, where this host's engine has them.

On this host in the volume itself; on a cluster inside the environment, which is started for it.
"""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from gateway.environments.layout import VOLUMES
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.errors import MoveError, UsageError
from gateway.model import Actor, EnvironmentRef
from gateway.moves.other_host import end_with_parent

_TICK_SECONDS = 15.0


class Receiver(Protocol):
    """Where files arrive."""

    def receive(self, ref: EnvironmentRef, volume: str, arguments: Sequence[str]) -> int:
        """Be rsync's other end for a volume, on this process's stdin and stdout; return its exit code."""

    def finish(self, ref: EnvironmentRef) -> None:
        """Leave the environment stopped: no more files come."""


class HereReceiver:
    """Into the directories of this host. It has the user's rights alone: what they wrote may be anything."""

    def __init__(self, lifecycle: EnvironmentLifecycle, is_root: bool) -> None:
        self._lifecycle = lifecycle
        self._is_root = is_root

    def receive(self, ref: EnvironmentRef, volume: str, arguments: Sequence[str]) -> int:
        words = _checked(volume, arguments)
        self._lifecycle.files.prepare(ref)
        uid, gid = self._lifecycle.files.owner(ref)
        rights = {"user": uid, "group": gid, "extra_groups": []} if self._is_root else {}
        try:
            done = subprocess.run(
                ["rsync", *words, "."],  # the directory is entered with root's rights, which its parents ask for
                cwd=self._lifecycle.files.volume(ref, volume),
                check=False,
                timeout=None,
                preexec_fn=end_with_parent(),
                **rights,  # type: ignore[call-overload]  # three options by name
            )
        except FileNotFoundError as exc:
            raise MoveError("move.no-rsync", "files are moved by rsync, which is not here", "install rsync") from exc
        return int(done.returncode)

    def finish(self, ref: EnvironmentRef) -> None:
        """Nothing was started."""


class InsideReceiver:
    """Into an environment of an engine that has the files elsewhere."""

    def __init__(self, lifecycle: EnvironmentLifecycle, user_ca_key: Callable[[], Path], actor: Actor) -> None:
        self._lifecycle = lifecycle
        self._user_ca_key = user_ca_key
        self._actor = actor

    def receive(self, ref: EnvironmentRef, volume: str, arguments: Sequence[str]) -> int:
        from gateway.ssh.upstream.attached_exec import AttachedExec, Outcome, run_attached
        from gateway.ssh.upstream.environment_login import Door

        words = _checked(volume, arguments)
        self._lifecycle.start(ref, actor=self._actor, is_filled=True)
        target = "." if volume == "home" else f"/{volume}"  # a command begins in the user's home
        outcome = Outcome()
        program = AttachedExec(
            door=Door(ref, self._lifecycle.host_key(ref), self._user_ca_key()),
            arguments=("rsync", *words, f"{target}/"),
            on_tick=lambda: self._lifecycle.touch(ref, 1),
            tick_seconds=_TICK_SECONDS,
        )
        run_attached(self._lifecycle.dial(ref, "ssh"), program, outcome)
        assert outcome.exit_code is not None  # noqa: S101 - run_attached raises otherwise
        return outcome.exit_code

    def finish(self, ref: EnvironmentRef) -> None:
        self._lifecycle.stop(ref, self._actor)


def _checked(volume: str, arguments: Sequence[str]) -> list[str]:
    """Return rsync's words but for the place, which is ours to say. Raises: UsageError."""
    is_rsync = len(arguments) > 2 and arguments[0] == "--server" and "--sender" not in arguments
    if volume not in VOLUMES or not is_rsync:
        raise UsageError("move.bad-files", "only rsync may ask for this, as 'devgw move' does", "'devgw move --help'")
    return list(arguments[:-1])
