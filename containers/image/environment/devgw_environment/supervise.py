"""The init process: keeps SSH and ports listener, notebook server and status_reporter alive, and stops all together.

They are separate processes, so that the death of one is not the death of another; sessions outlive them all.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from devgw_environment.contract import Environment
from devgw_environment.eventlog import log_event
from devgw_environment.home import furnish_home, prepare_scratch
from devgw_environment.notebook import notebook_command, notebook_variables
from devgw_environment.processes import adopt_orphans, reap, stop_descendants
from devgw_environment.wake import SignalWaiter

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 15.0
SETTLED_AFTER_SECONDS = 30.0


@dataclass
class Service:
    """A child process that is started again when it ends, later each time it ends early."""

    name: str
    command: list[str]
    variables: dict[str, str]
    folder: Path = Path("/")
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    delay_seconds: float = field(default=FIRST_DELAY_SECONDS)

    def start(self, now: float) -> None:
        """Start the process in a session of its own, its output in the environment's log."""
        self.process = subprocess.Popen(
            self.command,
            env=self.variables,
            cwd=self.folder if os.access(self.folder, os.X_OK) else "/",
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started_at = now
        log_event(f"{self.name}.started", pid=self.process.pid)

    def note_end(self, exit_code: int, now: float) -> None:
        """Remember that the process ended and when to start it again."""
        if now - self.started_at > SETTLED_AFTER_SECONDS:
            self.delay_seconds = FIRST_DELAY_SECONDS
        self.start_at = now + self.delay_seconds
        log_event(f"{self.name}.ended", exit_code=exit_code, again_in_seconds=self.delay_seconds)
        self.delay_seconds = min(self.delay_seconds * 2, LONGEST_DELAY_SECONDS)
        if self.process is not None:
            self.process.returncode = exit_code  # reaped by us, so Popen must not wait for it
        self.process = None


def make_services(environment: Environment) -> list[Service]:
    """The three services of an environment, what speaks with the gateway about them, and how each is started."""
    isolation = ["-I"] if sys.flags.isolated else []
    own = [sys.executable, *isolation, "-m", "devgw_environment"]
    variables = {**os.environ, "PATH": environment.search_path}
    return [
        Service("listener", [*own, "listen"], variables),
        Service("ports", [*own, "ports"], variables),
        Service("notebook", notebook_command(environment), notebook_variables(environment), environment.home),
        Service("status-reporter", [*own, "status-reporter"], variables),
    ]


def start_project(environment: Environment) -> None:
    """Start what carries the workspace's project out; it is nobody's service, and its failure nobody's end."""
    isolation = ["-I"] if sys.flags.isolated else []
    command = [sys.executable, *isolation, "-m", "devgw_environment", "project"]
    try:
        Service("project", command, {**os.environ, "PATH": environment.search_path}).start(time.monotonic())
    except OSError as error:
        log_event("project.failed", reason=error)


def tend(services: list[Service]) -> None:
    """Reap what has ended and start what is due."""
    ended = reap()
    now = time.monotonic()
    for service in services:
        if service.process is not None and service.process.pid in ended:
            service.note_end(ended[service.process.pid], now)
        if service.process is None and now >= service.start_at:
            service.start(now)


def run_supervisor(environment: Environment) -> int:
    """Keep the environment alive until SIGTERM or SIGINT, then stop every process in it."""
    os.umask(0o022)  # as on a plain server, whatever the engine's own was
    waiter = SignalWaiter(signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    adopt_orphans()
    prepare_scratch(environment)
    furnish_home(environment)
    services = make_services(environment)
    log_event("environment.started", user=environment.user, uid=os.getuid(), pid=os.getpid())
    start_project(environment)
    received: set[int] = set()
    while not received & {signal.SIGTERM, signal.SIGINT}:
        tend(services)
        received, _ = waiter.wait(0.5)
    log_event("environment.stopping")
    log_event("environment.stopped", killed=stop_descendants(environment.stop_grace_seconds))
    return 0
