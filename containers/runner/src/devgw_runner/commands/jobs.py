"""`devgw-run jobs`, `logs`, `stop` and `checkpoint`: see and steer what runs."""

import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from devgw_runner.commands.arguments import CommandParser
from devgw_runner.jobs.detached import Job, find_job, follow_output, list_jobs, stop_job
from devgw_runner.jobs.registry import live_runs, request_checkpoints
from devgw_runner.paths import logs_root

REPORT_VERSION = 1


def list_all(arguments: Sequence[str]) -> int:
    """Show detached jobs, newest first, and the runs that train right now."""
    parser = CommandParser("jobs", "list detached jobs and live runs")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = _parse(parser, arguments)
    jobs, runs = list_jobs(options.root), live_runs(options.root)
    if options.output == "json":
        report = {
            "version": REPORT_VERSION,
            "jobs": [_job_json(job) for job in jobs],
            "runs": [vars(run) for run in runs],
        }
        print(json.dumps(report, indent=1))
        return 0
    for job in jobs:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started))
        print(f"{job.id}  {job.state:<10}  {started}  {' '.join(job.command)}")
    for run in runs:
        print(f"run {run.run}  pid {run.pid}  checkpoints {run.checkpoints}")
    return 0


def show_logs(arguments: Sequence[str]) -> int:
    """Print a job's output; with -f until it ends."""
    parser = CommandParser("logs", "print the output of a detached job, the newest by default")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument("job", nargs="?", help="id, or its beginning")
    options = _parse(parser, arguments)
    _, directory = find_job(options.job, options.root)
    try:
        for chunk in follow_output(directory, follow=options.follow):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    except (KeyboardInterrupt, BrokenPipeError):  # the reader is gone; the job is not touched
        return 128 + signal.SIGINT
    return 0


def stop(arguments: Sequence[str]) -> int:
    """Ask a job to save a checkpoint and end."""
    parser = CommandParser("stop", "send SIGTERM to a detached job: it saves a checkpoint and ends")
    parser.add_argument("job", help="id, or its beginning")
    options = _parse(parser, arguments)
    job, _ = find_job(options.job, options.root)
    print(f"asked {job.id} to stop" if stop_job(job, signal.SIGTERM) else f"{job.id} is not running ({job.state})")
    return 0


def checkpoint_now(arguments: Sequence[str]) -> int:
    """Ask every live run for a checkpoint: what a gateway calls before a lease ends."""
    options = _parse(CommandParser("checkpoint", "ask every live run for a checkpoint now (SIGUSR1)"), arguments)
    runs = request_checkpoints(options.root)
    for run in runs:
        print(f"asked {run.run} (pid {run.pid}) for a checkpoint in {run.checkpoints}")
    if not runs:
        print("no run is training")
    return 0


def _parse(parser: CommandParser, arguments: Sequence[str]):  # type: ignore[no-untyped-def]  # noqa: ANN202 - argparse.Namespace is untyped anyway
    parser.add_argument("--log-dir", dest="root", type=Path, default=logs_root(), help="root of the logs")
    return parser.parse_args(arguments)


def _job_json(job: Job) -> dict[str, object]:
    return {**vars(job), "state": job.state}
