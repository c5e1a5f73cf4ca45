"""Joins the doctor to what it asks: the engine's examiner, the store, and the environments by their own ssh."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gateway.doctor.doctor import Doctor, Sources
from gateway.doctor.inside import Answer
from gateway.errors import DevgwError, EngineError
from gateway.gpus.sampler import holders_of
from gateway.model import EnvironmentRef, GpuUuid

if TYPE_CHECKING:
    from gateway.app.composition import App

_INSIDE_SECONDS = 90.0  # importing torch on a cold disk is most of it


def doctor_of(app: "App") -> Doctor:
    """Return a doctor for this gateway's host."""
    return Doctor(sources_of(app))


def sources_of(app: "App") -> Sources:
    """Name whom the doctor asks here."""
    return Sources(
        settings=app.settings,
        engine=lambda: app.engine_diagnostics,
        sensors=app.sensors,
        leases=lambda: held_leases(app),
        policy_file=app.policy.file,
        load_policy=lambda: app.policy.policy,
        ask_inside=lambda ref, arguments: ask_inside(app, ref, arguments),
    )


def held_leases(app: "App") -> Mapping[GpuUuid, EnvironmentRef]:
    """Return who holds which GPU; before `devgw init` nobody does, and no database is made for asking."""
    path = app.database.path
    if path is not None and not path.exists():
        return {}
    return holders_of(app.lease_table.held())


def ask_inside(app: "App", ref: EnvironmentRef, arguments: Sequence[str]) -> Answer:
    """Run a command in an environment as its user. Raises: EngineError, also where it is not running."""
    from gateway.ssh.upstream.captured_exec import run_captured

    try:
        dialled = app.environments.dial(ref, "ssh")
    except DevgwError as exc:
        raise EngineError("environment.unreachable", f"{ref} does not answer: {exc.message}") from exc
    host_key = app.environments.host_key(ref)
    done = run_captured(dialled, ref, host_key, app.authority.user_ca_key, arguments, _INSIDE_SECONDS)
    return Answer(done.exit_code, done.stdout, done.stderr)
