"""Runs the commands of one field side by side, until they end or their time is over."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from devgw_environment.processes import adopt_orphans, stop_descendants
from devgw_environment.project.document import Step
from devgw_environment.project.text import shown

READ_BYTES = 64 * 1024
STOP_GRACE_SECONDS = 5.0
LINGER_SECONDS = 1.0
"""How long the output of what a command left behind is still read; it goes on without a reader."""


@dataclass(frozen=True)
class Place:
    """Where commands run: the project's folder, the variables of a session, and where their output goes."""

    folder: Path
    variables: Mapping[str, str]
    write: Callable[[bytes], None]


class Stopped(BaseException):
    """The commands were asked to end: the session has gone, or the environment stops."""


def stop_on_signals() -> None:
    """Let SIGHUP and SIGTERM raise `Stopped`, once."""

    def stop(_number: int, _frame: object) -> None:
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise Stopped

    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, stop)


def run_commands(field: str, steps: Mapping[str, Step], place: Place, deadline: float) -> str:
    """Run them as this user, without a terminal; returns what went wrong, empty where nothing did.

    What they leave running goes on when they succeed; when their time is over, all of it is ended.
    """
    with contextlib.suppress(OSError):
        adopt_orphans()
    running: dict[str, subprocess.Popen[bytes]] = {}
    with selectors.DefaultSelector() as outputs:
        try:
            for name, step in steps.items():
                running[name] = _start(step, place)
                outputs.register(running[name].stdout, selectors.EVENT_READ)  # type: ignore[arg-type]  # it is a pipe
            is_over = _pass_on(running, outputs, place, deadline)
        except OSError as error:
            stop_descendants(STOP_GRACE_SECONDS)
            return f"{_name(field, name)} could not be started: {error.strerror}"
        except (Stopped, KeyboardInterrupt):
            stop_descendants(STOP_GRACE_SECONDS)
            raise
        finally:
            for process in running.values():
                process.stdout.close()  # type: ignore[union-attr]  # it is a pipe
    if not is_over:
        stop_descendants(STOP_GRACE_SECONDS)
        return f"{field} did not end in its time and was ended"
    failed = {name: process.returncode for name, process in running.items() if process.returncode}
    return "; ".join(f"{_name(field, name)} {_ending(code)}" for name, code in failed.items())


def _start(step: Step, place: Place) -> subprocess.Popen[bytes]:
    command = ["/bin/sh", "-c", step] if isinstance(step, str) else list(step)
    return subprocess.Popen(
        command,
        cwd=place.folder,
        env=dict(place.variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _pass_on(
    running: Mapping[str, subprocess.Popen[bytes]], outputs: selectors.BaseSelector, place: Place, deadline: float
) -> bool:
    """Read until all have ended; whether they did in time."""
    ended_at: float | None = None
    while True:
        now = time.monotonic()
        if ended_at is None and not [name for name in running if running[name].poll() is None]:
            ended_at = now
        if ended_at is not None and (not outputs.get_map() or now > ended_at + LINGER_SECONDS):
            return True
        if ended_at is None and now > deadline:
            return False
        if not outputs.get_map():
            time.sleep(0.1)
        for key, _ in outputs.select(0.1) if outputs.get_map() else ():
            data = os.read(key.fd, READ_BYTES)
            if data:
                place.write(data)
            else:
                outputs.unregister(key.fileobj)


def _name(field: str, name: str) -> str:
    return f"{field} '{shown(name, 40)}'" if name else field


def _ending(code: int) -> str:
    return f"ended with exit status {code}" if code > 0 else f"was ended by signal {-code}"
