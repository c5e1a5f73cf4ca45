"""Parts of the cluster fail while alice works: nothing she was told is untrue, and her environment goes on."""

import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import NODE_SECONDS, Site, served
from tests.cluster.environments import NAMESPACE, cluster, cluster_variables, kubectl, node_is, objects
from tests.support.gateway_process import GatewayProcess, poll

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]
_BEGUN = "cut -d' ' -f22 /proc/1/stat"
"""Says when the environment's first process began: the same as before where it is the same process."""

_DOUBTED_SECONDS = 15
"""Longer than a stream lives whose node is unknown to the API, and from where nothing comes."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    gateway = GatewayProcess(tmp_path_factory.mktemp("faults"), cluster_variables())
    try:
        gateway.devgw("init")
        yield served(gateway)
    finally:
        gateway.close()


@pytest.fixture
def gateway(site: Site) -> GatewayProcess:
    return site.gateway


def node_of(gateway: GatewayProcess) -> str:
    return str(gateway.devgw_json("show", "alice")["environment"]["node"])


def begun(gateway: GatewayProcess) -> bytes:
    """Return when her environment began, once it can be reached."""
    return poll(lambda: gateway.ssh("alice", _BEGUN).stdout, "alice's environment can be reached", 90)


class Work:
    """A command of alice's, over a connection of its own, that works until it is told that it is over."""

    def __init__(self, gateway: GatewayProcess) -> None:
        words = gateway.ssh_command("alice", "echo begun; read word && echo $word; exit 7")
        self._client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._client.stdout is not None
        assert self._client.stdout.readline() == b"begun\n"

    def end(self) -> tuple[int, bytes]:
        """Tell it, and return its exit code and the rest of its output."""
        out, _error = self._client.communicate(b"over\n", timeout=120)
        return self._client.returncode, out

    def ended(self) -> int | None:
        """Return the exit code, once it has ended by itself."""
        return self._client.poll()


WORKED = (7, b"over\n")
"""How the work ends that nothing has cut."""


def test_a_kubelet_that_is_killed_ends_nobodys_work(gateway: GatewayProcess) -> None:
    """Not even while the API knows nothing of its node: nothing is done about it then, and who is in works on."""
    node, before = node_of(gateway), begun(gateway)
    work = Work(gateway)
    cluster("kill", f"{node}/kubelet")
    poll(lambda: node_is(node, "Unknown"), "the node is not known any more", NODE_SECONDS)
    poll(lambda: gateway.devgw_json("show", "alice")["environment"]["state"] == "unknown", "devgw knows", NODE_SECONDS)
    assert f"node {node} does not answer" in gateway.devgw("stop", "alice", expect=1).stderr
    time.sleep(_DOUBTED_SECONDS)
    assert work.end() == WORKED
    cluster("start", f"{node}/kubelet")
    poll(lambda: node_is(node, "True"), "the node is ready", NODE_SECONDS)
    assert begun(gateway) == before
    assert gateway.ssh("alice", "exit 7").returncode == 7


def test_a_runtime_that_is_killed_ends_no_environment(gateway: GatewayProcess) -> None:
    node, before = node_of(gateway), begun(gateway)
    work = Work(gateway)
    cluster("kill", f"{node}/containerd")
    cluster("start", f"{node}/containerd")
    poll(lambda: node_is(node, "True"), "the node is ready", NODE_SECONDS)
    assert begun(gateway) == before
    assert work.end() == WORKED


def test_an_api_server_that_is_killed_is_waited_for(gateway: GatewayProcess) -> None:
    """While it is away nothing is done that it would have to know of, with a reason; who is in works on."""
    before = begun(gateway)
    work = Work(gateway)
    cluster("kill", "apiserver")
    away = gateway.devgw("stop", "alice", expect=1)
    assert "does not answer" in away.stderr
    assert work.ended() is None
    cluster("start", "apiserver")
    poll(_answers, "the API server answers", NODE_SECONDS)
    assert begun(gateway) == before
    assert gateway.devgw_json("show", "alice")["environment"]["state"] == "running"
    assert work.end() == WORKED


def test_a_database_of_the_cluster_that_is_killed_loses_nothing(gateway: GatewayProcess) -> None:
    before = begun(gateway)
    work = Work(gateway)
    cluster("kill", "etcd")
    cluster("start", "etcd")
    poll(_answers, "the API server answers", NODE_SECONDS)
    assert begun(gateway) == before
    assert len(objects("pods")) == 1
    assert work.end() == WORKED


def test_a_pod_that_somebody_removed_is_made_anew_for_who_connects(gateway: GatewayProcess) -> None:
    """As an eviction does: the GPU goes back and comes again, the files are there, the journal knows.

    Work in it ends, and not as a success.
    """
    gateway.ssh("alice", "cat >kept", stdin=b"kept")
    before = begun(gateway)
    work = Work(gateway)
    (pod,) = objects("pods")
    kubectl("-n", NAMESPACE, "delete", pod, "--grace-period=1")
    poll(lambda: pod not in objects("pods") or begun(gateway) != before, "it is gone", NODE_SECONDS)
    assert begun(gateway) != before
    assert poll(lambda: work.ended() is not None, "the work has ended", NODE_SECONDS)
    assert work.ended() not in {0, WORKED[0]}
    assert gateway.ssh("alice", "cat kept").stdout == b"kept"
    assert len(gateway.devgw_json("show", "alice")["environment"]["gpus"]) == 1
    gateway.devgw("audit", "verify")


def _answers() -> bool:
    done = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True, timeout=60, check=False)
    return done.returncode == 0
