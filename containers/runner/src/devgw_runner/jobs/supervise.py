"""The process behind a detached job: runs the command, passes signals on, records the exit code.

Run as `python -m devgw_runner.jobs.supervise JOB_DIRECTORY`.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

from devgw_runner.errors import EXIT_OWN_FAILURE, SIGNAL_EXIT_BASE
from devgw_runner.jobs.detached import read_job, write_job
from devgw_runner.jobs.process import start_ticks

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def main() -> int:
    """Supervise one job to its end."""
    directory = Path(sys.argv[1])
    job = replace(read_job(directory), pid=os.getpid(), ticks=start_ticks(os.getpid()) or 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited by the job: a lost connection is not its business
    write_job(directory, job)
    code = _run(job.command)
    write_job(directory, replace(job, exit_code=code))
    return code


def _run(command: list[str]) -> int:
    pending: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if children:
            children[0].send_signal(number)
        else:
            pending.append(number)

    for passed in PASSED_ON:
        signal.signal(passed, pass_on)
    try:
        children.append(subprocess.Popen(command))
    except OSError as exc:
        print(f"devgw-run: error: cannot start {command[0]}: {exc.strerror}", file=sys.stderr)
        return EXIT_OWN_FAILURE
    for number in pending:
        children[0].send_signal(number)
    code = children[0].wait()
    return SIGNAL_EXIT_BASE - code if code < 0 else code


if __name__ == "__main__":
    raise SystemExit(main())
