"""Jobs that outlive the connection: started in a session of their own, their output in a file.

Layout: `<logs>/.jobs/<id>/job.json` and `output.log`. The supervising process is `supervise`.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from devgw_runner.errors import UsageError, storage_error
from devgw_runner.jobs.process import is_same_process, start_ticks

JOBS_DIRECTORY = ".jobs"
RECORD = "job.json"
OUTPUT = "output.log"
FOLLOW_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """One detached job; `exit_code` is None until it has ended."""

    id: str
    command: list[str]
    started: float
    pid: int = 0
    ticks: int = 0
    exit_code: int | None = None

    @property
    def state(self) -> str:
        if self.exit_code is not None:
            return f"exited {self.exit_code}"
        return "running" if is_same_process(self.pid, self.ticks) else "lost"


def start_detached(name: str, command: list[str], logs_root: Path) -> Job:
    """Start `command` so that neither a lost connection nor a closed terminal ends it.

    Raises:
        StorageError: the logs volume cannot be written.
    """
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    job = Job(f"{name}-{moment}-{secrets.token_hex(2)}", command, time.time())
    directory = logs_root / JOBS_DIRECTORY / job.id
    try:
        directory.mkdir(parents=True)
        write_job(directory, job)
        with (directory / OUTPUT).open("ab") as output:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "devgw_runner.jobs.supervise", str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as exc:
        raise storage_error(exc, "starting a detached job") from exc
    return replace(job, pid=supervisor.pid, ticks=start_ticks(supervisor.pid) or 0)


def write_job(directory: Path, job: Job) -> None:
    """Replace the job's record atomically; readers never see half of one."""
    temporary = directory / (RECORD + ".tmp")
    temporary.write_text(json.dumps(asdict(job)), encoding="utf-8")
    temporary.replace(directory / RECORD)


def read_job(directory: Path) -> Job:
    return Job(**json.loads((directory / RECORD).read_text(encoding="utf-8")))


def list_jobs(logs_root: Path) -> list[Job]:
    """Return all jobs, newest first."""
    records = (logs_root / JOBS_DIRECTORY).glob(f"*/{RECORD}")
    return sorted((read_job(path.parent) for path in records), key=lambda job: job.started, reverse=True)


def find_job(wanted: str | None, logs_root: Path) -> tuple[Job, Path]:
    """Return a job by id or unique beginning, or the newest.

    Raises:
        UsageError: there is none, or several begin like that.
    """
    matches = [job for job in list_jobs(logs_root) if wanted is None or job.id.startswith(wanted)]
    exact = [job for job in matches if job.id == wanted]
    if not matches:
        raise UsageError(f"there is no job {wanted}" if wanted else "there are no jobs", "'devgw-run jobs' lists them")
    if wanted is not None and not exact and len(matches) > 1:
        raise UsageError(f"{len(matches)} jobs begin with {wanted}", "'devgw-run jobs' lists them")
    job = exact[0] if exact else matches[0]
    return job, logs_root / JOBS_DIRECTORY / job.id


def follow_output(directory: Path, *, follow: bool) -> Iterator[bytes]:
    """Yield the job's output; with `follow`, until the job has ended."""
    with (directory / OUTPUT).open("rb") as output:
        while True:
            ended = read_job(directory).state != "running"  # asked before reading, so nothing is missed
            while chunk := output.read(65536):
                yield chunk
            if ended or not follow:
                return
            time.sleep(FOLLOW_SECONDS)


def stop_job(job: Job, number: int) -> bool:
    """Signal the job's supervisor, which passes it on; say whether the job was alive."""
    if job.state != "running":
        return False
    os.kill(job.pid, number)
    return True
