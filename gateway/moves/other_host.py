"""The way to another host's `devgw move-in`: OpenSSH's client and rsync over it, as the administrator has set them up.

Who the other host is, the administrator's known_hosts says; nothing is asked on the way and no agent goes along.
"""

import ctypes
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.errors import Exit, MoveError, UsageError
from gateway.moves.description import Description, Reply, parse

SSH = (
    "ssh", "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ClearAllForwardings=yes",
    "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
)  # fmt: skip
DEVGW = ("devgw",)
RSYNC = (
    "rsync", "--recursive", "--links", "--perms", "--times", "--hard-links", "--acls", "--xattrs", "--sparse",
    "--specials", "--delete", "--one-file-system", "--no-protect-args", "--timeout=600",
)  # fmt: skip
"""Owner and group are the target's to give. What is not there any more is removed there."""
_PARTLY = 23  # rsync(1): some attributes were not set
_VANISHED = 24  # rsync(1): files were removed while they were copied, as in a volume that is in use
_NO_CONNECTION = 255  # ssh(1)
_NO_COMMAND = 127
_PR_SET_PDEATHSIG = 1  # prctl(2)
_USAGE = 2
_DESTINATION = re.compile(r"([A-Za-z_][\w.-]*@)?([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:.]+\])")
_NOT_OURS = re.compile(
    r"rsync: (\[(generator|receiver)\] )?failed to set (times|permissions) on "
    r'"/(home/[a-z0-9._-]+|workspace|checkpoints|logs)/\.": Operation not permitted \(1\)'
)
"""A claim's own directory is the cluster's: its user may write there, and not set its mode and time."""
_GONE = re.compile(r'file has vanished: ".*"')
_TOGETHER = re.compile(r"rsync error: some files/attrs were not transferred \(see previous errors\) \(code 23\) at .*")
_SAID = re.compile(r"^devgw: (error|hint): (.*)$", re.MULTILINE)


class Target(Protocol):
    """The other host, as a move needs it. Each call may be made again, and waits for one that is still at it."""

    def ask(self, question: str, description: Description) -> Reply:
        """Put a question of `devgw move-in`: check, begin, activate, abort.

        Raises:
            MoveError: `move.unreachable`, `move.older`, `move.refused`, which has the target's own exit code.
        """

    def copy(self, directory: Path, move_id: str, environment: str, volume: str, *, may_change: bool) -> None:
        """Make a volume there as this directory is here; with `may_change` it is in use meanwhile.

        Raises:
            MoveError: `move.copy-failed`, `move.no-rsync`; and as `ask`, without the exit code: rsync has its own.
        """


@dataclass(frozen=True, slots=True)
class OtherHost:
    """A host by its ssh destination. `ssh` and `devgw` are commands with their arguments."""

    destination: str
    ssh: Sequence[str] = SSH
    devgw: Sequence[str] = DEVGW

    def __post_init__(self) -> None:
        if not _DESTINATION.fullmatch(self.destination):
            hint = "root@gpu2.example.org, or a Host of your ~/.ssh/config that names port and key"
            raise UsageError("move.bad-target", f"{self.destination[:80]!r} is no ssh destination", hint)

    def ask(self, question: str, description: Description) -> Reply:
        command = shlex.join([*self.devgw, "move-in", question])
        try:
            done = subprocess.run(
                [*self.ssh, self.destination, command],
                input=description.model_dump_json().encode(),
                capture_output=True,
                check=False,
                timeout=None,  # an image may be loaded and a pod be placed; ssh itself sees a dead host
                preexec_fn=end_with_parent(),
            )
        except OSError as exc:
            raise self._unreachable(f"{self.ssh[0]}: {exc.strerror}") from exc
        if done.returncode:
            raise self._refusal(done.returncode, done.stderr.decode(errors="replace"))
        return parse(Reply, done.stdout, self.destination)

    def copy(self, directory: Path, move_id: str, environment: str, volume: str, *, may_change: bool) -> None:
        receive = shlex.join([*self.devgw, "move-in", "files", move_id, environment, volume, "--"])
        command = [
            *RSYNC, f"--rsh={shlex.join(self.ssh)}", f"--rsync-path={receive}", f"{directory}/",
            f"{self.destination}:volume",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                check=False, timeout=None, preexec_fn=end_with_parent(),
            )  # fmt: skip
        except FileNotFoundError as exc:
            raise MoveError("move.no-rsync", "files are moved by rsync, which is not here", "install rsync") from exc
        said = done.stderr.decode(errors="replace")
        if done.returncode and not _is_whole(done.returncode, said, may_change=may_change):
            raise self._failed_copy(done.returncode, said, f"{environment}: {volume}")

    def _refusal(self, code: int, said: str) -> MoveError:
        """Say what went wrong in the words of whoever said it: devgw there, or ssh."""
        words = dict(_SAID.findall(said))
        if code == _USAGE and "move-in" in words.get("error", "").replace("'", ""):
            hint = f"'{shlex.join([*self.devgw, 'version'])}' there; both hosts need devgw of the same version"
            return MoveError("move.older", f"devgw on {self.destination} is older, and knows no moves", hint)
        if "error" in words:
            message, known = f"{self.destination}: {words['error']}", code in {int(one) for one in Exit}
            return MoveError("move.refused", message, words.get("hint", ""), exit_code=Exit(code) if known else None)
        last = (said.strip().splitlines() or [f"exit code {code}"])[-1].strip()
        if code == _NO_COMMAND:
            hint = "--devgw names the command there, such as 'sudo -n /opt/devgw/bin/devgw'"
            return MoveError("move.older", f"there is no devgw on {self.destination}: {last}", hint)
        return self._unreachable(last)

    def _failed_copy(self, code: int, said: str, what: str) -> MoveError:
        if _SAID.search(said):
            return self._refusal(code, said)
        lines = [*said.strip().splitlines(), f"exit code {code}"]
        if code == _NO_CONNECTION or lines[0].startswith("ssh: "):  # rsync tells its own end where it noticed first
            return self._unreachable(lines[0].strip())
        first = [*_of_rsync(said), *lines][0].strip()
        hint = "nothing is lost here; the same command again goes on"
        return MoveError("move.copy-failed", f"the files of {what} cannot be copied: {first}", hint)

    def _unreachable(self, why: str) -> MoveError:
        hint = f"'{shlex.join([*self.ssh, self.destination, *self.devgw, 'version'])}' must work without a question"
        return MoveError("move.unreachable", f"{self.destination} cannot be reached: {why}", hint)


def _is_whole(code: int, said: str, *, may_change: bool) -> bool:
    """Say whether all files went over although rsync did not end with 0."""
    if code == _VANISHED:
        return may_change
    harmless = [_NOT_OURS, _TOGETHER, *([_GONE] if may_change else [])]
    lines = _of_rsync(said)
    return (
        code == _PARTLY
        and any(_NOT_OURS.fullmatch(line) for line in lines)
        and all(any(one.fullmatch(line) for one in harmless) for line in lines)
    )


def _of_rsync(said: str) -> list[str]:
    """Return the lines that rsync wrote; a login shell on the other host may have put in others."""
    return [line for line in said.splitlines() if line.startswith(("rsync", "file has vanished", "IO error", "ERROR"))]


def end_with_parent() -> Callable[[], None]:
    """Return what has a child killed when this process is: it must not go on beside the command that is given again."""
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return in_child
