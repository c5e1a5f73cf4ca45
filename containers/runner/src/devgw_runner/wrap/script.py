"""`devgw-run --wrap -- python train.py …`: what can be done for an unmodified script, and no more.

Nothing inside the script is patched, and that is said: compile and autocast are not applied.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from devgw_runner.environment import process_environment
from devgw_runner.errors import EXIT_OWN_FAILURE, SIGNAL_EXIT_BASE, PreflightError, UsageError
from devgw_runner.metrics.gpu import NvmlUnavailableError, read_gpus
from devgw_runner.paths import cache_root, logs_root, prove_writable
from devgw_runner.preflight import gpu, machine
from devgw_runner.preflight.doctor import first_failure, run_checks
from devgw_runner.resources import usable_cpus
from devgw_runner.wrap.orphans import adopt_orphans, end_orphans
from devgw_runner.wrap.sidecar import GpuSidecar, write_summary
from devgw_runner.wrap.tee import Tee

QUICK_CHECKS = (gpu.check_driver, machine.check_shm, machine.check_logs, machine.check_cache)
FROM_A_TERMINAL = frozenset({signal.SIGINT, signal.SIGHUP})
"""A terminal sends these to its whole foreground group, and there the script stays, to be able to read."""
NOT_APPLIED = "compile and autocast were not applied: the script owns its loop"


def run_wrapped(command: Sequence[str], *, processes: int | None, tf32: bool) -> int:
    """Run `command` and return its exit code; 128 + n if signal n killed it, 125 if it could not start.

    Raises:
        PreflightError: a check failed, and the script was not started.
        StorageError: the logs volume cannot be written.
    """
    if not command:
        raise UsageError("--wrap has no command", "devgw-run --wrap -- python train.py")
    problem = first_failure(run_checks(QUICK_CHECKS))
    if problem is not None:
        raise PreflightError(problem.message, problem.fix)
    logs = logs_root().absolute() / _name_of(command)
    prove_writable(logs, "logs")
    count = processes or 1  # a script that knows nothing of others would do the same work in each process
    cpus = max(1, usable_cpus() // count)
    environment = {**process_environment(cache_root().absolute(), cpus), **_tf32(tf32), **os.environ}
    print(f"devgw-run: wrapped, {NOT_APPLIED}; output also in {logs / 'output.log'}", file=sys.stderr)
    visible = _gpu_count()
    if processes is None and visible > 1:
        more = f"'devgw-run --nproc {visible} --wrap -- ...' starts one for each, by torchrun"
        print(f"devgw-run: one process, although {visible} GPUs are visible; {more}", file=sys.stderr)
    started = time.monotonic()
    with GpuSidecar(logs):
        code = _run(_with_torchrun(list(command), count), environment, logs, is_launcher=count > 1)
    write_summary(logs, command=list(command), exit_code=code, seconds=time.monotonic() - started, note=NOT_APPLIED)
    return code


def _run(command: list[str], environment: dict[str, str], logs: Path, *, is_launcher: bool) -> int:
    children: list[subprocess.Popen[bytes]] = []
    has_terminal = sys.stdin.isatty()

    def send(number: int) -> None:
        if children:
            children[0].send_signal(number)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if not (has_terminal and number in FROM_A_TERMINAL):
            send(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    if is_launcher:
        adopt_orphans()
    with Tee(logs / "output.log", on_lost=lambda: send(signal.SIGHUP)) as tee:
        try:
            # Out of our process group, or a signal to the group would be heard twice: from its sender and from us.
            group = None if has_terminal else 0
            script = subprocess.Popen(
                command, env=environment, stdout=tee.stdout, stderr=tee.stderr, process_group=group
            )
            children.append(script)
        except OSError as exc:
            print(
                f"devgw-run: error: cannot start {command[0]}: {(exc.strerror or '').lower()}",
                file=sys.stderr,
            )
            print("devgw-run: hint: devgw-run --wrap -- python train.py", file=sys.stderr)
            return EXIT_OWN_FAILURE
        tee.start_copying()
        code = children[0].wait()
        if is_launcher and code < 0:
            end_orphans()
    return SIGNAL_EXIT_BASE - code if code < 0 else code


def _with_torchrun(command: list[str], processes: int) -> list[str]:
    """Put torchrun before a Python script when several processes are wanted.

    Raises:
        UsageError: the command is not `python script …` or `python -m module …`.
    """
    if processes == 1:
        return command
    if not Path(command[0]).name.startswith("python") or len(command) < 2:
        raise UsageError(
            f"{processes} processes can be started of a python script only",
            "use --nproc 1, or -- python train.py",
        )
    return [command[0], "-m", "devgw_runner.parallel.launch", "--nproc", str(processes), "--", *command[1:]]


def _gpu_count() -> int:
    try:
        gpus = read_gpus()
    except NvmlUnavailableError:
        return 0
    # A process sees one MIG slice, and NCCL does not join slices (pytorch/pytorch#130181).
    return 1 if any(gpu.uuid.startswith("MIG-") for gpu in gpus) else len(gpus)


def _tf32(wanted: bool) -> dict[str, str]:
    # torch's own switch (aten/src/ATen/Context.cpp); nothing is injected into the script.
    return {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"} if wanted else {}


def _name_of(command: Sequence[str]) -> str:
    """Return the script's stem as the run's name."""
    script = next((part for part in command if part.endswith(".py")), command[0])
    stem = Path(script).stem
    return "".join(character if character.isalnum() or character in "._-" else "-" for character in stem) or "wrapped"
