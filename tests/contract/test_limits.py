"""The limits of an environment in force: memory, processes, network and the end of its life, seen from inside it."""

import os
import re

import pytest

from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentRef, Limits
from tests.contract.inside import Spool, wait_until
from tests.contract.subject import MIB, EngineUnderTest, own, started

ALICE = EnvironmentRef.parse("alice")


def test_memory_beyond_the_limit_is_refused_and_the_witness_says_so(real: EngineUnderTest) -> None:
    """Swap does not help; the environment lives on, and `devgw show` can name the reason."""
    spool = started(real)
    if real.unlimited:
        assert "limits on memory" in real.engine.observe(ALICE).caveats[0]
        return
    assert spool.run("dd if=/dev/zero of=/dev/null bs=300M count=1").code != 0
    wait_until(lambda: "out of memory" in real.engine.observe(ALICE).detail, "the engine heard of it")
    assert real.engine.observe(ALICE).running


def test_processes_beyond_the_limit_are_refused(real: EngineUnderTest) -> None:
    """A fork bomb stays in its own house."""
    limits = Limits(memory_bytes=128 * MIB, cpus=1.0, pids=20, shm_bytes=MIB)
    spool = started(real, limits=limits)
    if real.unlimited:
        assert "processes are NOT enforced" in real.engine.observe(ALICE).caveats[0]
        return
    assert "can't fork" in spool.run("for n in $(seq 60); do sleep 5 & done").text


def test_shared_memory_has_its_own_size(alice: Spool) -> None:
    """Docker's 64 MiB would kill a DataLoader with a bus error."""
    assert alice.run("df -m /dev/shm | grep -c ' 32 '").text == "1\n"


def test_stack_and_open_files_are_raised_as_far_as_the_engine_may(real: EngineUnderTest) -> None:
    """More than a plain shell's 1024 files and 8 MiB of stack; whoever asks about it is told where it is not so."""
    spool = started(real)
    assert int(spool.run("ulimit -n").text) > 1024
    is_told = any("drops ulimits: stack" in caveat for caveat in real.engine.observe(ALICE).caveats)
    assert is_told is real.has_own_ulimits
    if not real.has_own_ulimits:
        assert spool.run("ulimit -s").text.strip() in {"65536", "unlimited"}


def test_without_egress_there_is_only_loopback(alice: Spool) -> None:
    """Invariant 1: no address that anyone could reach, and nothing to reach from it."""
    interfaces = re.findall(r"^\s*(\w+):", alice.run("cat /proc/net/dev").text, re.MULTILINE)
    assert interfaces == ["lo"]
    assert alice.run("cat /proc/net/route").text.count("\n") == 1


def test_loopback_works(alice: Spool) -> None:
    """Jupyter's kernels talk through it."""
    alice.run("nc -ll -p 7000 -e /bin/echo here </dev/null >/dev/null 2>&1 &")
    wait_until(lambda: "here" in alice.run("nc -w 2 127.0.0.1 7000").text, "a listener on loopback answered")


def test_two_environments_with_egress_cannot_reach_each_other(real: EngineUnderTest) -> None:
    """Invariant 1, tried both ways, with a listener that its own side can reach."""
    if real.egress == Egress.NONE:
        with pytest.raises(EngineError) as refusal:
            real.engine.create(real.spec(egress=Egress.INTERNET))
        assert refusal.value.code == "egress.unavailable"
        return
    spools = [started(real, handle, egress=Egress.INTERNET) for handle in ("alice", "bob")]
    addresses = [own_address(spool) for spool in spools]
    assert addresses[0] != addresses[1]
    for spool in spools:
        spool.run("nc -ll -p 7000 -e /bin/echo here </dev/null >/dev/null 2>&1 &")
    for spool, own_one, other in zip(spools, addresses, reversed(addresses), strict=True):
        wait_until(lambda s=spool, a=own_one: "here" in s.run(f"nc -w 2 {a} 7000").text, "the listener is up")
        assert "here" not in spool.run(f"timeout 5 nc -w 2 {other} 7000").text


def own_address(spool: Spool) -> str:
    """Return the IPv4 address of eth0 inside."""
    found = re.search(r"inet (?:addr:)?([\d.]+)", spool.run("busybox ip addr show eth0").text)
    assert found, "an environment with egress has an address"
    return found[1]


def test_stop_asks_with_sigterm_first(real: EngineUnderTest) -> None:
    """A training run writes its checkpoint."""
    spool = started(real)
    spool.run("true")
    real.engine.stop(ALICE, 20)
    assert spool.terminated
    assert real.engine.observe(ALICE).exit_code == 7


def test_stop_kills_the_whole_tree_in_the_end(real: EngineUnderTest) -> None:
    """Neither entrypoint nor background child listens to SIGTERM; the child's end of a FIFO is closed afterwards."""
    spool = started(real, variables={"PROBE_IGNORES_TERM": "1"})
    fifo = real.run_directory(ALICE) / "fifo"
    os.mkfifo(fifo)
    own(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        spool.run("sleep 1000 </dev/null >/run/devgw/fifo 2>&1 &")
        wait_until(lambda: has_writer(reader), "the child holds its end")
        real.engine.stop(ALICE, 1)
        assert not real.engine.observe(ALICE).running
        assert real.engine.observe(ALICE).exit_code == 137
        wait_until(lambda: not has_writer(reader), "the child is gone")
    finally:
        os.close(reader)


def has_writer(reader: int) -> bool:
    """Say whether somebody holds the writing end of a FIFO: without one a read ends at once (fifo(7))."""
    try:
        return os.read(reader, 1) != b""
    except BlockingIOError:
        return True


def test_orphans_are_reaped(alice: Spool) -> None:
    """An init is process 1, so a long life does not fill the process table."""
    alice.run("for n in $(seq 5); do (sleep 0 &) ; done")
    wait_until(lambda: "Z (zombie)" not in alice.run("cat /proc/[0-9]*/status").text, "no zombie is left")
