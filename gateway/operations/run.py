"""Runs the training runner in an environment for an administrator: decide, write down, run, write down how it ended."""

import shlex
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.audit import events
from gateway.engines.interface import Progress
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.waking import blocking, dial_awake, without_loop
from gateway.errors import DevgwError, EngineError, NodeError
from gateway.gate import Gate
from gateway.model import Environment, EnvironmentRef
from gateway.operations.recorded import Recorded
from gateway.store.environments import EnvironmentTable
from policies.requests import SessionRequest, Subject

RUNNER = "devgw-run"
_TICK_SECONDS = 15.0
Start = Callable[[EnvironmentRef, Progress], Environment]


@dataclass(frozen=True, slots=True)
class RunParts:
    """What running inside stands on. `start` starts an environment for the administrator, in the queue if need be."""

    table: EnvironmentTable
    lifecycle: EnvironmentLifecycle
    start: Start
    user_ca_key: Callable[[], Path]


class RunOperations:
    """What an administrator has done inside environments. The policy must let their user do it themselves."""

    def __init__(self, parts: RunParts, gate: Gate, recorded: Recorded) -> None:
        self._table = parts.table
        self._environments = parts.lifecycle
        self._start = parts.start
        self._user_ca_key = parts.user_ca_key
        self._gate = gate
        self._recorded = recorded

    def run(self, ref: EnvironmentRef, arguments: Sequence[str], progress: Progress) -> int:
        """Run `devgw-run ARGUMENTS`, starting a stopped environment first; return its exit code.

        Raises:
            NotFoundError, DeniedError, DevgwError: before anything ran.
            EngineError: `environment.unreachable`, also when the connection is lost before the end.
        """
        self._admit(ref)

        def wake() -> None:
            progress(f"{ref} does not run: starting it")
            self._start(ref, progress)

        dial = lambda: self._environments.dial(ref, "ssh")  # noqa: E731
        dialled = without_loop(dial_awake(blocking(dial), blocking(wake)))
        return self._attend(dialled, ref, arguments)

    def logs(self, ref: EnvironmentRef, arguments: Sequence[str]) -> int:
        """Run `devgw-run logs ARGUMENTS`; to read, nothing is started and no GPU taken. Raises: as `run`."""
        self._admit(ref)
        try:
            dialled = self._environments.dial(ref, "ssh")
        except NodeError:
            raise
        except (DevgwError, OSError) as exc:
            why = exc.message if isinstance(exc, DevgwError) else str(exc)
            raise EngineError(
                "environment.unreachable", f"{ref} does not answer: {why}", f"'devgw start {ref}' first"
            ) from exc
        return self._attend(dialled, ref, ("logs", *arguments))

    def _admit(self, ref: EnvironmentRef) -> None:
        self._table.require(ref)
        request = SessionRequest(Subject(ref.user), datetime.now(UTC), "exec")
        self._gate.require(request, self._recorded.actor, str(ref))

    def _attend(self, dialled: socket.socket, ref: EnvironmentRef, arguments: Sequence[str]) -> int:
        from gateway.ssh.upstream.attached_exec import AttachedExec, Outcome, run_attached
        from gateway.ssh.upstream.environment_login import Door

        actor, outcome, began = self._recorded.actor, Outcome(), time.monotonic()
        words = (RUNNER, *arguments)
        self._recorded.event(events.session_opened(actor, str(ref), "exec", terminal=False, command=shlex.join(words)))
        program = AttachedExec(
            door=Door(ref, self._environments.host_key(ref), self._user_ca_key()),
            arguments=words,
            on_tick=lambda: self._table.touch(ref),
            tick_seconds=_TICK_SECONDS,
        )
        try:
            run_attached(dialled, program, outcome)
        finally:
            self._recorded.event(
                events.session_closed(
                    actor,
                    str(ref),
                    "exec",
                    terminal=False,
                    exit_code=outcome.exit_code,
                    sent_bytes=outcome.received_bytes,  # as for a user's session: sent is what the program wrote
                    received_bytes=outcome.sent_bytes,
                    seconds=time.monotonic() - began,
                )
            )
        assert outcome.exit_code is not None  # noqa: S101 - run_attached raises otherwise
        return outcome.exit_code
