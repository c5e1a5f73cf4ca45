"""The fake engine of two machines under the contract, with what a test may do to a node."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.model import EnvironmentSpec, GpuUuid
from tests.contract.subject import EngineUnderTest, Machines
from tests.fakes.cluster import FakeCluster
from tests.fakes.engine import Crash

_GPUS = tuple(GpuUuid(f"GPU-00000000-0000-4000-8000-00000000000{number}") for number in range(4))


@contextmanager
def cluster_under_test(directory: Path) -> Iterator[EngineUnderTest]:
    """Yield a gateway's view of a fresh cluster; both GPUs that a test may ask for are on one node."""
    cluster = FakeCluster({"node1": _GPUS[:2], "node2": _GPUS[2:]})
    cluster.add_image("devgw-contract:probe", {"org.devgw.contract": "probe"}, says="probe is ready")
    cluster.add_image("someone-elses:latest", {})
    engine = cluster.connect("one")

    def interrupt_create(spec: EnvironmentSpec) -> None:
        cluster.at_step = _crash_before_container
        with suppress(Crash):
            engine.create(spec)
        cluster.at_step = lambda _step: None

    yield EngineUnderTest(
        "cluster",
        engine,
        cluster.connect("two"),
        "devgw-contract:probe",
        directory,
        interrupt_create,
        engine.end,
        *_GPUS[:2],
        machines=Machines(cluster.cut, cluster.heal),
    )


def _crash_before_container(step: str) -> None:
    if step == "create.container":
        raise Crash
