"""Run the checks: all of them for `devgw-run doctor`, the quick ones before a wrapped script."""

from collections.abc import Callable, Sequence

from devgw_runner.preflight import gpu, machine
from devgw_runner.preflight.check import Check, State, failed

EVERY_CHECK: Sequence[Callable[[], Check]] = (
    gpu.check_torch,
    gpu.check_driver,
    gpu.check_device,
    gpu.check_libraries,
    gpu.check_gpu_memory,
    machine.check_limits,
    machine.check_shm,
    machine.check_compiler,
    machine.check_data,
    machine.check_checkpoints,
    machine.check_logs,
    machine.check_cache,
)


def run_checks(checks: Sequence[Callable[[], Check]] = EVERY_CHECK) -> list[Check]:
    """Run every check; one that breaks is a failure of its own and hides no other."""
    return [_run(check) for check in checks]


def first_failure(checks: list[Check]) -> Check | None:
    return next((check for check in checks if check.state is State.FAILED), None)


def _run(check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as exc:  # noqa: BLE001 - a doctor must finish its round
        name = check.__name__.removeprefix("check_").replace("_", "-")
        return failed(name, f"the check itself broke: {type(exc).__name__}: {exc}", "report this with the full output")
