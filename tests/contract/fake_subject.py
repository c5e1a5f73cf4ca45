"""The fake engine under the contract: whatever the rest of the tests build on it must hold of a real engine too."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.model import EnvironmentSpec, GpuUuid
from tests.contract.subject import EngineUnderTest
from tests.fakes.engine import Crash, FakeDaemon, FakeEngine

_GPUS = (GpuUuid("GPU-00000000-0000-4000-8000-000000000000"), GpuUuid("GPU-00000000-0000-4000-8000-000000000001"))


@contextmanager
def fake_under_test(directory: Path) -> Iterator[EngineUnderTest]:
    """Yield a gateway's view of a fresh daemon."""
    daemon = FakeDaemon(gpus=frozenset(_GPUS))
    daemon.add_image("devgw-contract:probe", {"org.devgw.contract": "probe"}, says="probe is ready")
    daemon.add_image("someone-elses:latest", {})
    engine = FakeEngine(daemon, "one")

    def interrupt_create(spec: EnvironmentSpec) -> None:
        daemon.at_step = _crash_before_container
        with suppress(Crash):
            engine.create(spec)
        daemon.at_step = lambda _step: None

    yield EngineUnderTest(
        "fake",
        engine,
        FakeEngine(daemon, "two"),
        "devgw-contract:probe",
        directory,
        interrupt_create,
        engine.end,
        *_GPUS,
    )


def _crash_before_container(step: str) -> None:
    if step == "create.container":
        raise Crash
