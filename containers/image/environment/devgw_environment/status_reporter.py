"""Tells the gateway whether this environment is in use and its GPUs answer, and acts on the gateway's notices.

The notice to save sends SIGUSR1 to every process of the training runner and runs the user's own stop hook.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from devgw_environment.contract import Environment
from devgw_environment.eventlog import log_event
from devgw_environment.kernel_watch import read_busy_kernels
from devgw_environment.probe import leased_gpus
from devgw_environment.refusals import read_refusals
from devgw_environment.use import CpuMeter

REPORT_SECONDS = 15.0
PROBE_TIMEOUT_SECONDS = 20.0
LOOK_SECONDS = 1.0
HOOK = Path(".config/devgw/before-stop")
RUNNER_WORDS = ("devgw-run", "devgw_runner")


def run_status_reporter(environment: Environment) -> int:
    """Report and look for notices until killed."""
    meter = CpuMeter()
    report_at = time.monotonic()
    acted_on: object = None
    while True:
        if time.monotonic() >= report_at:
            with contextlib.suppress(OSError):
                write_report(environment, meter.percent())
            report_at = time.monotonic() + REPORT_SECONDS
        notice = read_notice(environment)
        if notice.get("save") is True and notice.get("stop_at") != acted_on:
            acted_on = notice.get("stop_at")
            save(environment, str(notice.get("reason", "")))
        time.sleep(LOOK_SECONDS)


def write_report(environment: Environment, cpu_percent: float) -> None:
    """Write status.json in one step."""
    refused = read_refusals(environment.scratch)
    document = {
        "version": 1,
        "at": time.time(),
        "cpu_percent": round(cpu_percent, 1),
        "busy_kernels": read_busy_kernels(environment),
        "gpu_error": probe_gpus(environment),
        "refused_logins": int(refused["count"]),
        "refused_at": refused["at"],
    }
    fresh = environment.run_folder / ".status.new"
    fresh.write_text(json.dumps(document) + "\n")
    fresh.replace(environment.run_folder / "status.json")


def probe_gpus(environment: Environment) -> str:
    """Why the GPUs do not answer, or nothing; a probe that hangs is an answer too."""
    if not leased_gpus(environment.config_folder):
        return ""
    isolation = ["-I"] if sys.flags.isolated else []
    command = [sys.executable, *isolation, "-m", "devgw_environment", "probe"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"the GPU did not answer within {PROBE_TIMEOUT_SECONDS:.0f} s"
    return done.stdout.strip() if done.returncode else ""


def read_notice(environment: Environment) -> dict[str, object]:
    """The gateway's notice, empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        document = json.loads((environment.config_folder / "notice.json").read_text())
        if isinstance(document, dict):
            return document
    return {}


def save(environment: Environment, reason: str) -> None:
    """Ask running jobs for a checkpoint, then run the user's stop hook, in its own session."""
    asked = ask_runners()
    hook = environment.home / HOOK
    has_hook = os.access(hook, os.X_OK)
    log_event("environment.saving", reason=reason, runners=len(asked), hook=has_hook)
    if has_hook:
        with contextlib.suppress(OSError):
            subprocess.Popen([str(hook)], cwd=environment.home, stdin=subprocess.DEVNULL, start_new_session=True)


def ask_runners(proc: Path = Path("/proc")) -> list[int]:
    """SIGUSR1 to the runner's processes that catch it: whoever does not would be ended by it."""
    asked = []
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                if is_runner((entry / "cmdline").read_bytes()) and catches_checkpoint((entry / "status").read_text()):
                    os.kill(int(entry.name), signal.SIGUSR1)
                    asked.append(int(entry.name))
    return asked


def is_runner(cmdline: bytes) -> bool:
    """Whether a process is the training runner or one of its workers."""
    words = cmdline.decode(errors="replace").split("\0")
    return any(Path(word).name in RUNNER_WORDS or word.startswith("devgw_runner") for word in words[:6])


def catches_checkpoint(status: str) -> bool:
    """Whether SIGUSR1 has a handler in a process, by its /proc/<pid>/status (proc(5): SigCgt)."""
    line = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(line.split()[1], 16) & 1 << (signal.SIGUSR1 - 1))
