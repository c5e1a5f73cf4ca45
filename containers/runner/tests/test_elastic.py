"""Nodes that come, go, and come back while the run goes on: what was trained is kept, whatever the first line said.

Two of torchrun's agents on the loopback interface stand for two nodes. The rendezvous waits for others, and for those
that do not answer, a few seconds instead of torch's half minute.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from devgw_runner.agreement import MAY_DIFFER, common_facts
from devgw_runner.checkpoint.start import RECORD, agree_on_start, is_under_way, record_launchers
from devgw_runner.config import TrainConfig
from devgw_runner.errors import CheckpointError, DataError
from devgw_runner.parallel import launcher
from devgw_runner.parallel.launcher import describe_launcher
from devgw_runner.parallel.world import World
from devgw_runner.plan.facts import DataFacts, DeviceFacts, Facts, ModelFacts
from devgw_runner.resources import Resources

from conftest import SCRIPTS, RunPaths
from test_launcher import descendants

SECONDS = 150
QUICK = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3"


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def node(tmp_path, port):
    """Start one node; those still alive at the end are killed with all their processes."""
    started: list[subprocess.Popen] = []

    def start(name: str, *flags: str, is_host: bool = False) -> subprocess.Popen:
        meeting = [
            "--nnodes=1:2",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint=127.0.0.1:{port}",
            "--rdzv-id=t",
            f"--rdzv-conf=is_host={int(is_host)},{QUICK}",
            "--local-addr=127.0.0.1",
            "--max-restarts=3",
        ]
        line = [sys.executable, "-m", "devgw_runner.parallel.launch", "--nproc", "1"]
        line += [f"--torchrun={word}" for word in meeting]
        line += ["--", str(SCRIPTS / "coming.py"), "--parallel", "auto", *flags]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        log = (tmp_path / f"{name}.log").open("w")
        started.append(
            subprocess.Popen(
                line, env=environment, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        )
        log.close()
        return started[-1]

    yield start
    for process in started:
        kill_all_of(process)
        process.wait(timeout=60)


def kill_all_of(process: subprocess.Popen) -> None:
    """As when a machine loses its power: launcher and processes at once."""
    found = [process.pid, *descendants(process.pid)]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def worlds(paths: RunPaths) -> set[int]:
    """How many processes made the checkpoints that there are."""
    found = set()
    for path in paths.checkpoints.glob("step-*/MANIFEST.json"):
        try:
            found.add(json.loads(path.read_text())["world"])
        except (OSError, ValueError):
            continue  # being replaced
    return found


def branches(paths: RunPaths) -> list[dict]:
    return json.loads((paths.checkpoints / "branches.json").read_text())["branches"]


def last_world(paths: RunPaths) -> int:
    newest = max(paths.checkpoints.glob("step-*/MANIFEST.json"), key=lambda path: path.parent.name, default=None)
    return json.loads(newest.read_text())["world"] if newest else 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_that_joins_goes_and_comes_back_does_not_begin_the_run_anew(node, poll, tmp_path):
    """All were started with `--resume off`: it was meant for the first start. One branch, steps that only rise."""
    flags = ("--run-name", "coming", "--resume", "off", "--steps", "1000000")
    paths = RunPaths(tmp_path, "coming")
    first = node("first", *flags, is_host=True)
    poll(lambda: last_world(paths) == 1, "the first node to train alone", SECONDS)
    second = node("second", *flags)
    poll(lambda: last_world(paths) == 2, "both nodes to train", SECONDS)
    kill_all_of(second)
    second.wait(timeout=60)
    steps = max(paths.steps())
    poll(lambda: max(paths.steps()) > steps + 2 and last_world(paths) == 1, "the first to go on alone", SECONDS)
    node("third", *flags)
    steps = max(paths.steps())
    poll(lambda: max(paths.steps()) > steps + 2 and last_world(paths) == 2, "both to train again", SECONDS)
    assert first.poll() is None
    assert len(branches(paths)) == 1
    assert worlds(paths) == {1, 2}
    seen = [record["step"] for record in paths.records()]
    resumes = [event["text"] for event in paths.events("resumed")]
    assert len(resumes) >= 3
    assert seen.count(1) == 1, seen  # it began once


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_with_another_line_is_refused_by_name(node, poll, tmp_path):
    """Its batches would be others; the run would wait for exchanges that never come."""
    flags = ("--run-name", "lines", "--steps", "1000000")
    node("first", *flags, is_host=True)
    node("second", *flags, "--batch-size", "4")
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    told = "process 1 has batch_size 8, the first one 4|process 1 has batch_size 4, the first one 8"
    poll(lambda: any(re.search(told, log.read_text()) for log in logs), "the refusal", SECONDS)


def test_the_first_start_does_what_its_line_says_and_later_ones_go_on(tmp_path):
    """Whoever was there before tells: a count of restarts does not, and a new node has none."""
    assert not is_under_way(tmp_path, ["boot ns 1:2"])
    record_launchers(tmp_path, ["boot ns 1:2", "boot ns 3:4"])
    assert is_under_way(tmp_path, ["boot ns 3:4", "boot ns 9:9"])
    assert not is_under_way(tmp_path, ["boot ns 9:9"])  # another day, the same line
    assert not is_under_way(tmp_path, [])
    (tmp_path / RECORD).write_text("damaged")
    assert not is_under_way(tmp_path, ["boot ns 3:4"])


def test_a_wish_that_cannot_be_met_is_told_by_all(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint at /nowhere"):
        agree_on_start("/nowhere", tmp_path, World(), "")


def test_a_launcher_has_a_name_of_its_own(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert describe_launcher() == ""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "t")
    monkeypatch.setenv(launcher.VARIABLE, launcher.own_description())
    boot, namespace, process = describe_launcher().split()
    assert boot == launcher.BOOT_ID.read_text().strip()
    assert namespace.startswith("pid:[")
    assert process.startswith(f"{os.getpid()}:")


def facts(**changes) -> Facts:
    made = Facts(DeviceFacts("cuda", memory_bytes=80), ModelFacts(1, 4), DataFacts(64), Resources(4, 2**30, 2**30))
    return replace(made, **changes)


def test_choices_rest_on_the_same_facts_in_all_processes():
    """The least memory, the first one's times; how a node loads stays its own."""
    small = DeviceFacts("cuda", memory_bytes=40, capability=(7, 0))
    one = facts(eager_seconds_per_sample=0.5, bytes_per_sample=3)
    other = facts(device=small, eager_seconds_per_sample=0.1, bytes_per_sample=4, has_compiler=False)
    seen = [common_facts(own, [one, other]) for own in (one, other)]
    assert seen[0] == replace(seen[1], device=seen[0].device)
    for common in seen:
        assert common.device.memory_bytes == 40
        assert common.device.capability == (0, 0)
        assert common.bytes_per_sample == 4
        assert common.eager_seconds_per_sample == 0.5
        assert not common.has_compiler
    busy = Resources(2, 2**20, 2**30)
    assert common_facts(facts(resources=busy), [one, facts(resources=busy)]).resources == busy


def test_data_sets_of_different_lengths_are_refused():
    short = facts(data=DataFacts(60))
    with pytest.raises(DataError, match="60 samples in one process, 64 in the first"):
        common_facts(short, [facts(), short])


def test_settings_that_may_differ_are_settings():
    assert set(TrainConfig.model_fields) >= MAY_DIFFER
