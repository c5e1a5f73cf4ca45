"""What an environment uses, by the engine's account."""

from gateway.engines.interface import Load
from gateway.model import EnvironmentRef
from tests.contract.subject import EngineUnderTest, started

ALICE = EnvironmentRef.parse("alice")
_BURN = "end=$(($(date +%s) + 2)); while [ $(date +%s) -lt $end ]; do :; done"
_FILL = "head -c 16777216 /dev/zero >/dev/shm/filled"


def test_what_runs_uses_processors_and_memory_and_what_does_not_uses_nothing(subject: EngineUnderTest) -> None:
    """An engine that counts nothing says so at each step, and never a number that it made up."""
    subject.engine.create(subject.spec())
    assert subject.engine.load(ALICE) is None
    subject.engine.start(ALICE)
    assert (subject.engine.load(ALICE) is not None) == subject.counts_load
    subject.engine.stop(ALICE, 1)
    assert subject.engine.load(ALICE) is None
    assert subject.engine.load(EnvironmentRef.parse("carol")) is None


def test_what_processes_do_is_seen(real: EngineUnderTest) -> None:
    """Two busy seconds of one processor are no more than that; memory that is filled counts."""
    inside = started(real)
    if not real.counts_load:
        assert real.engine.load(ALICE) is None
        return
    before = _load(real)
    assert inside.run(_BURN).code == 0
    burnt = _load(real)
    assert 0.2 < burnt.cpu_seconds - before.cpu_seconds < 4
    assert inside.run(_FILL).code == 0
    assert _load(real).memory_bytes - burnt.memory_bytes > 8 << 20


def _load(subject: EngineUnderTest) -> Load:
    load = subject.engine.load(ALICE)
    assert load is not None
    return load
