"""Runs the training runner in an environment for an administrator: decide, write down, run, write down how it ended."""

import shlex
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.audit.event import Event
from gateway.engines.interface import Progress
from gateway.errors import DevgwError, EngineError
from gateway.model import Actor, EnvironmentRef
from policies.requests import SessionRequest, Subject

if TYPE_CHECKING:
    from gateway.app.composition import App
    from gateway.ssh.upstream.attached_exec import Outcome

RUNNER = "devgw-run"
_TICK_SECONDS = 15.0
_LONGEST_COMMAND = 4096


class RunnerOperations:
    """What an administrator has done inside environments. The policy must let their user do it themselves."""

    def __init__(self, app: "App", actor: Actor) -> None:
        self._app = app
        self._actor = actor

    def run(self, ref: EnvironmentRef, arguments: Sequence[str], progress: Progress) -> int:
        """Run `devgw-run ARGUMENTS`, starting a stopped environment first; return its exit code.

        Raises:
            NotFoundError, DeniedError, DevgwError: before anything ran.
            EngineError: `environment.unreachable`, also when the connection is lost before the end.
        """
        self._admit(ref)
        try:
            dialled = self._app.environments.dial(ref, "ssh")
        except (DevgwError, OSError):
            progress(f"{ref} does not run: starting it")
            self._app.administration.start(ref, progress, wait=True)
            dialled = self._app.environments.dial(ref, "ssh")
        return self._attend(dialled, ref, arguments)

    def logs(self, ref: EnvironmentRef, arguments: Sequence[str]) -> int:
        """Run `devgw-run logs ARGUMENTS`; to read, nothing is started and no GPU taken. Raises: as `run`."""
        self._admit(ref)
        try:
            dialled = self._app.environments.dial(ref, "ssh")
        except (DevgwError, OSError) as exc:
            why = exc.message if isinstance(exc, DevgwError) else str(exc)
            raise EngineError(
                "environment.unreachable", f"{ref} does not answer: {why}", f"'devgw start {ref}' first"
            ) from exc
        return self._attend(dialled, ref, ("logs", *arguments))

    def _admit(self, ref: EnvironmentRef) -> None:
        self._app.table.require(ref)
        request = SessionRequest(Subject(ref.user), datetime.now(UTC), "exec")
        self._app.gate.require(request, self._actor, str(ref))

    def _attend(self, dialled: socket.socket, ref: EnvironmentRef, arguments: Sequence[str]) -> int:
        from gateway.ssh.upstream.attached_exec import AttachedExec, Outcome, run_attached

        outcome, began = Outcome(), time.monotonic()
        words = (RUNNER, *arguments)
        self._note("session.opened", ref, kind="exec", terminal=False, command=shlex.join(words)[:_LONGEST_COMMAND])
        program = AttachedExec(
            ref=ref,
            host_key=self._app.environments.host_key(ref),
            user_ca_key=self._app.authority.user_ca_key,
            arguments=words,
            on_tick=lambda: self._app.table.touch(ref),
            tick_seconds=_TICK_SECONDS,
        )
        try:
            run_attached(dialled, program, outcome)
        finally:
            self._note_closed(ref, outcome, time.monotonic() - began)
        assert outcome.exit_code is not None  # noqa: S101 - run_attached raises otherwise
        return outcome.exit_code

    def _note_closed(self, ref: EnvironmentRef, outcome: "Outcome", seconds: float) -> None:
        self._note(
            "session.closed",
            ref,
            kind="exec",
            terminal=False,
            exit_code=outcome.exit_code,
            sent_bytes=outcome.received_bytes,  # as for a user's session: sent is what the program wrote
            received_bytes=outcome.sent_bytes,
            seconds=round(seconds, 3),
        )

    def _note(self, code: str, ref: EnvironmentRef, **detail: str | float | bool | None) -> None:
        self._app.journal.submit(Event(code, self._actor, str(ref), detail=dict(detail))).result()
