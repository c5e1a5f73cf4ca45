"""Detached jobs and live runs: seen, followed, stopped, asked for a checkpoint."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from devgw_runner.jobs.detached import find_job, list_jobs, start_detached
from devgw_runner.jobs.process import is_same_process, start_ticks
from devgw_runner.jobs.registry import live_runs

LONG = ("--steps", "100000000", "--log-every", "1", "--checkpoint-minutes", "0")


def test_a_process_is_recognised_by_id_and_start_time():
    ticks = start_ticks(os.getpid())
    assert is_same_process(os.getpid(), ticks)
    assert not is_same_process(os.getpid(), ticks + 1)
    assert start_ticks(2**22 + 1) is None


def test_a_job_is_found_by_the_beginning_of_its_id(tmp_path, poll):
    job = start_detached("echo", [sys.executable, "-c", "print('hi'); raise SystemExit(7)"], tmp_path)
    poll(lambda: list_jobs(tmp_path)[0].state == "exited 7", "the job to end")
    found, directory = find_job(job.id[:-2], tmp_path)
    assert found.id == job.id
    assert (directory / "output.log").read_text() == "hi\n"


def test_a_job_whose_supervisor_was_killed_is_lost(tmp_path, poll):
    job = start_detached("sleep", ["sleep", "1000"], tmp_path)
    poll(lambda: list_jobs(tmp_path)[0].pid == job.pid, "the supervisor to begin")
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    poll(lambda: children.read_text().strip() != "", "the job to begin")
    child = int(children.read_text().split()[0])
    os.kill(job.pid, signal.SIGKILL)
    os.waitpid(job.pid, 0)
    os.kill(child, signal.SIGKILL)
    assert list_jobs(tmp_path)[0].state == "lost"


@pytest.mark.slow
def test_a_detached_run_survives_sighup_and_is_followed_and_stopped(finished, devgw_run, tiny_script, paths, poll):
    """The whole life of a job as a user sees it over ssh."""
    started = finished("--detach", tiny_script, *LONG)
    assert started.returncode == 0
    job_id = started.stdout.strip()
    assert f"devgw-run logs -f {job_id}" in started.stderr
    poll(lambda: len(paths.records()) > 2, "training to begin")
    follower = devgw_run("logs", "-f", job_id)

    (live,) = live_runs(paths.logs.parent)
    os.kill(live.pid, signal.SIGHUP)  # what a lost connection sends
    before = len(paths.records())
    poll(lambda: len(paths.records()) > before + 2, "training to go on")

    assert "tiny" in finished("checkpoint").stdout
    poll(lambda: len(paths.steps()) == 1, "the checkpoint that was asked for")

    report = json.loads(finished("jobs", "-o", "json").stdout)
    assert report["version"] == 1
    assert (report["jobs"][0]["id"], report["jobs"][0]["state"]) == (job_id, "running")
    assert report["runs"][0]["run"] == "tiny"

    assert finished("stop", job_id).returncode == 0
    out, _ = follower.communicate(timeout=60)
    assert "stopped by SIGTERM" in out
    assert json.loads(finished("jobs", "-o", "json").stdout)["jobs"][0]["state"] == "exited 143"
    assert live_runs(paths.logs.parent) == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_ctrl_c_and_a_lost_terminal_save_and_stop(devgw_run, tiny_script, paths, poll, number, code):
    process = devgw_run(tiny_script, *LONG)
    poll(lambda: len(paths.records()) > 2, "training to begin")
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    assert len(paths.steps()) == 1
