"""What is kept of a project between starts: the person's choice, what has run, and what a login is told."""

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devgw_environment.contract import Environment
from devgw_environment.project.errors import ProjectError

MOST_REMEMBERED = 64
_MOST_BYTES = 256 * 1024
OFF = "off"


@dataclass
class State:
    """`chosen` is a file's path, `off`, or empty: the workspace's own. `ran` has digests of what has run by path."""

    chosen: str = ""
    ran: dict[str, str] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    """The last look: `file`, `outcome`, `detail`, `remarks`."""


@dataclass(frozen=True)
class StateFolder:
    """`~/.local/state/devgw/project`, where start-up files of the shell look too (rootfs/etc/profile.d/devgw.sh)."""

    path: Path

    @classmethod
    def of(cls, environment: Environment) -> "StateFolder":
        """The environment's."""
        return cls(environment.home / ".local" / "state" / "devgw" / "project")

    @property
    def log(self) -> Path:
        """The output of the commands that ran last."""
        return self.path / "log"

    def read(self) -> State:
        """What was kept; nothing where it is missing or damaged."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found = json.loads(_read_regular(self.path / "state.json"))
            ran = found.get("ran")
            return State(
                str(found.get("chosen", "")),
                {str(path): str(digest) for path, digest in ran.items()} if isinstance(ran, dict) else {},
                found["last"] if isinstance(found.get("last"), dict) else {},
            )
        return State()

    def keep(self, state: State) -> None:
        """Keep the newest of it."""
        ran = dict(list(state.ran.items())[-MOST_REMEMBERED:])
        self.write("state.json", json.dumps({"version": 1, "chosen": state.chosen, "ran": ran, "last": state.last}))

    def tell(self, *, each_time: str = "", once: str = "") -> None:
        """Say something to who logs in: as long as it holds, or once."""
        self.write("note", each_time)
        self.write("project_news", once)

    def set_variables(self, lines: str) -> None:
        """Give sessions these variables from now on."""
        self.write("variables.sh", lines)

    def write(self, name: str, text: str) -> None:
        """Replace a file in one step.

        Raises:
            ProjectError: the home takes no file.
        """
        fresh = self.path / f".{name}.{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not text and not os.path.lexists(self.path / name):
                return
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()
            with open(fresh, "x", encoding="utf-8", opener=_open_private) as opened:
                opened.write(text)
            fresh.replace(self.path / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise ProjectError(
                f"{self.path / name} cannot be written: {error.strerror}", "is the disk full?"
            ) from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold this state against another that carries a project out.

        Raises:
            ProjectError: another one does.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise ProjectError(f"{self.path} cannot be used: {error.strerror}", "is the disk full?") from error
        with os.fdopen(descriptor):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ProjectError("a project's commands are running", "wait for their end, or restart") from error
            yield

    def is_held(self) -> bool:
        """Whether commands run just now."""
        try:
            with self.alone():
                return False
        except ProjectError:
            return True


def describe(last: Mapping[str, Any]) -> Mapping[str, str]:
    """The last look in words, with nothing missing."""
    return {key: str(last.get(key, "")) for key in ("file", "outcome", "detail", "remarks")}


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _read_regular(path: Path) -> str:
    """A file of the home that may be anything by now: nothing is waited for, and no more read than it may hold."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path} is not a regular file")
        with os.fdopen(descriptor, encoding="utf-8", closefd=False) as opened:
            return opened.read(_MOST_BYTES)
    finally:
        os.close(descriptor)
