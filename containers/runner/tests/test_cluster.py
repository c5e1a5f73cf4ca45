"""Several nodes meet by torchrun's rendezvous; a process that dies once is started again with all others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from devgw_runner.cli import main
from devgw_runner.errors import UsageError
from devgw_runner.parallel.cluster import Cluster, check_cluster, own_addresses, split_endpoint

from conftest import SCRIPTS, RunPaths
from test_parallel import weights

NODES = {"10.77.0.1": "dgwt-a", "10.77.0.2": "dgwt-b"}


@pytest.fixture
def two_nodes():
    """Two network namespaces with one cable between them: what is bound to the wrong address is not reached."""
    names = {address: f"{name}{os.getpid()}" for address, name in NODES.items()}
    first, second = names.values()
    cable = [f"va{os.getpid()}"[:14], f"vb{os.getpid()}"[:14]]
    steps = [
        ["netns", "add", first],
        ["netns", "add", second],
        ["link", "add", cable[0], "netns", first, "type", "veth", "peer", "name", cable[1], "netns", second],
    ]
    for (address, name), device in zip(names.items(), cable, strict=True):
        steps += [
            ["-n", name, "addr", "add", f"{address}/24", "dev", device],
            ["-n", name, "link", "set", device, "up"],
            ["-n", name, "link", "set", "lo", "up"],
        ]
    try:
        for step in steps:
            subprocess.run(["ip", *step], check=True, timeout=30)
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=30)


@pytest.mark.slow
def test_two_nodes_train_as_one_world(two_nodes, tmp_path):
    """The same line on each, of different network namespaces; the weights are those of one node with two processes."""
    started = []
    for name in two_nodes.values():
        line = ["ip", "netns", "exec", name, sys.executable, "-m", "devgw_runner", "--nodes", "2", "--nproc", "1"]
        line += ["--rendezvous", "10.77.0.1:29477", "--run-id", "t", str(SCRIPTS / "blocks.py")]
        line += ["--run-name", "nodes", "--steps", "4"]
        started.append(subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        answers = [process.communicate(timeout=200) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], answers
    assert sum("finished at step 4" in out for out, _ in answers) == 1  # one of the two records
    line = [sys.executable, "-m", "devgw_runner", "--nproc", "2", str(SCRIPTS / "blocks.py"), "--run-name", "one"]
    subprocess.run([*line, "--steps", "4"], cwd=tmp_path, check=True, capture_output=True, timeout=200)
    expected, got = weights(RunPaths(tmp_path, "one"), 4), weights(RunPaths(tmp_path, "nodes"), 4)
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


@pytest.mark.slow
def test_a_process_that_dies_is_started_again_with_all_others(finished, tmp_path):
    """They go on from the newest checkpoint, also where the first start was told not to resume."""
    flags = (
        "--steps",
        "8",
        "--checkpoint-every",
        "2",
        "--run-name",
        "fell",
        "--resume",
        "off",
        "--no-checkpoint-async",
    )
    line = ("--nproc", "2", "--restarts", "1", SCRIPTS / "falling.py", *flags)
    done = finished(*line, MARK=str(tmp_path / "mark"))
    assert done.returncode == 0, done.stderr
    assert Path(tmp_path / "mark").exists()
    assert "resumed from step-00000004" in done.stdout
    whole = finished("--nproc", "2", SCRIPTS / "blocks.py", "--steps", "8", "--run-name", "whole")
    assert whole.returncode == 0
    expected, got = weights(RunPaths(tmp_path, "whole"), 8), weights(RunPaths(tmp_path, "fell"), 8)
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


@pytest.mark.slow
def test_without_restarts_the_first_failure_is_the_runs_end(finished, tmp_path):
    line = ("--nproc", "2", SCRIPTS / "falling.py", "--steps", "8", "--run-name", "fell")
    assert finished(*line, MARK=str(tmp_path / "mark")).returncode == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nodes", "two"], "--nodes two makes no sense"),
        (["--nodes", "0"], "--nodes 0 makes no sense"),
        (["--nodes", "4:2"], "--nodes 4:2 makes no sense"),
        (["--nodes", "2"], "several nodes need a place to meet"),
        (["--nodes", "2", "--rendezvous", "127.0.0.1:many"], "no sensible port"),
        (["--nodes", "2", "--rendezvous", "nowhere.invalid:1"], "is not known"),
        (["--restarts", "many"], "--restarts many makes no sense"),
        (["--nodes"], "--nodes has no value"),
        (["--restarts", "2", "--wrap"], "are for a Task"),
    ],
)
def test_a_cluster_that_cannot_be_is_told(capsys, tiny_script, words, message):
    assert main([str(tiny_script), *words] if words == ["--nodes"] else [*words, str(tiny_script)]) == 2
    assert message in capsys.readouterr().err


def test_an_endpoint_has_a_port_of_its_own_or_torchruns():
    assert split_endpoint("127.0.0.1:5") == ("127.0.0.1", 5)
    assert split_endpoint("127.0.0.1") == ("127.0.0.1", 29400)
    with pytest.raises(UsageError):
        check_cluster(Cluster("2", "127.0.0.1:0"))


def test_the_node_that_is_the_rendezvous_knows_it():
    assert own_addresses()["lo"] == "127.0.0.1"
    here = Cluster("2", "127.0.0.1:29400").arguments()
    assert "--rdzv-conf=is_host=1" in here
    assert "--local-addr=127.0.0.1" in here
    assert Cluster("2", "127.0.0.1").environment()["GLOO_SOCKET_IFNAME"] == "lo"
    assert Cluster().arguments() == ["--standalone", "--max-restarts=0"]


def test_each_start_of_the_processes_has_a_store_of_its_own():
    """In a store that outlives them, a process may read the address of its dead neighbour."""
    assert Cluster(restarts=1).environment() == {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    assert Cluster("1:2", "127.0.0.1").environment()["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"
    assert Cluster().environment() == {}
