"""What an environment can and cannot do, seen from inside it. Every engine that runs processes keeps all of it."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentRef, Limits, Mount
from tests.contract.inside import Output, Spool, wait_until
from tests.contract.subject import MIB, UID, EngineUnderTest, own

ALICE = EnvironmentRef.parse("alice")


@pytest.fixture
def alice(real: EngineUnderTest) -> Spool:
    """Return a way into a running environment with the plain spec."""
    return started(real)


def started(real: EngineUnderTest, handle: str = "alice", **changes: object) -> Spool:
    """Create and start an environment and return a way in."""
    spec = real.spec(handle, **changes)
    real.engine.create(spec)
    real.engine.start(spec.ref)
    return real.inside(spec.ref)


def status(spool: Spool) -> dict[str, str]:
    """Read /proc/self/status inside."""
    lines = spool.run("cat /proc/self/status").text.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_processes_run_as_the_environments_user(alice: Spool) -> None:
    """Invariant 3: real, effective, saved and file-system ids alike, and no group of root's."""
    read = status(alice)
    assert read["Uid"].split() == [str(UID)] * 4
    assert read["Gid"].split() == [str(UID)] * 4
    assert "0" not in read["Groups"].split()


@pytest.mark.parametrize("name", ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
def test_no_capability_is_held_or_can_be(alice: Spool, name: str) -> None:
    """Invariant 3: the bounding set is empty too, so nothing can bring one back."""
    assert int(status(alice)[name], 16) == 0


def test_no_new_privileges_and_a_seccomp_filter_are_set(alice: Spool) -> None:
    """A setuid program gains nothing; the filter is the engine's default, never absent."""
    read = status(alice)
    assert (read["NoNewPrivs"], read["Seccomp"]) == ("1", "2")


def test_only_its_own_processes_are_seen(alice: Spool) -> None:
    """A handful, of which none is the host's."""
    pids = [name for name in alice.run("ls /proc").text.split() if name.isdigit()]
    assert "1" in pids
    assert len(pids) < 8


def test_the_root_is_read_only(alice: Spool) -> None:
    """A directory anybody may write in the image stays as it was."""
    tried = alice.run("touch /open/file")
    assert tried.code != 0
    assert "Read-only file system" in tried.text


def test_the_root_can_be_writable_where_the_spec_says_so(real: EngineUnderTest) -> None:
    assert started(real, read_only_root=False).run("touch /open/file").code == 0


@pytest.mark.parametrize("path", ["/tmp", "/run", "/run/devgw", "/dev/shm"])
def test_the_user_can_write_where_programs_expect_it(alice: Spool, path: str) -> None:
    assert alice.run(f"echo x > {path}/file && cat {path}/file") == Output(0, "x\n")


def test_tmp_can_hold_programs_and_run_cannot(alice: Spool) -> None:
    """torch.compile loads what it built in /tmp."""
    build = "cp /bin/busybox {0}/echo && {0}/echo built"
    assert alice.run(build.format("/tmp")).code == 0
    assert alice.run(build.format("/run")).code != 0


@pytest.mark.parametrize("path", ["/tmp", "/run"])
def test_temporary_file_systems_honour_no_setuid_and_no_device(alice: Spool, path: str) -> None:
    options = mount_options(alice, path)
    assert {"nosuid", "nodev"} <= options


def mount_options(spool: Spool, path: str) -> set[str]:
    """Read the options of the mount at a path inside."""
    for line in spool.run("cat /proc/self/mountinfo").text.splitlines():
        fields = line.split()
        if fields[4] == path:
            return set(fields[5].split(","))
    raise AssertionError(f"nothing is mounted at {path}")


def test_a_dataset_is_read_only(real: EngineUnderTest, tmp_path: Path) -> None:
    """Even for the owner of its files."""
    dataset = tmp_path / "imagenet"
    dataset.mkdir()
    (dataset / "data").write_text("pixels")
    own(dataset)
    spec = real.spec()
    spool = started(real, mounts=(*spec.mounts, Mount(dataset, "/datasets/imagenet", read_only=True)))
    assert spool.run("cat /datasets/imagenet/data").text == "pixels"
    assert "Read-only file system" in spool.run("touch /datasets/imagenet/mine").text
    assert "ro" in mount_options(spool, "/datasets/imagenet")


def test_a_writable_mount_is_written_as_its_owner(real: EngineUnderTest) -> None:
    """The home on the host belongs to the user, whatever made the file."""
    home = real.owned_directory("home")
    spec = real.spec()
    spool = started(real, mounts=(*spec.mounts, Mount(home, "/home/alice")))
    assert spool.run("echo kept > /home/alice/file").code == 0
    assert (home / "file").read_text() == "kept\n"
    assert (home / "file").stat().st_uid == UID


def test_variables_of_the_spec_are_set(real: EngineUnderTest) -> None:
    spool = started(real, variables={"DEVGW_USER": "alice", "ODD": "a b=c\n'd'"})
    assert spool.run('printf "%s|%s" "$DEVGW_USER" "$ODD"').text == "alice|a b=c\n'd'"


def test_the_hostname_is_the_handle(real: EngineUnderTest) -> None:
    """It stands in the prompt; '+' cannot be in a host name."""
    assert started(real, "alice+proj").run("hostname").text == "alice-proj\n"


def test_an_image_cannot_ask_for_gpus(alice: Spool) -> None:
    """CUDA images set NVIDIA_VISIBLE_DEVICES=all, and this suite's image does as well."""
    assert alice.run('echo "$NVIDIA_VISIBLE_DEVICES"').text == "void\n"


def test_a_leased_gpu_is_injected_and_no_other(real: EngineUnderTest) -> None:
    """Invariant 11, on the engine's side: by UUID, with its device node."""
    if real.gpu is None or real.other_gpu is None:
        pytest.skip("the engine has no CDI spec to inject from")
    variables = started(real, gpus=(real.other_gpu,)).run("env").text
    assert real.other_gpu in variables
    assert real.gpu not in variables
    assert re.search(rf"^NVIDIA_VISIBLE_DEVICES=(void|{real.other_gpu})$", variables, re.MULTILINE)


def test_an_environment_without_gpus_sees_no_device(alice: Spool) -> None:
    assert "nvidia" not in alice.run("ls /dev").text


def test_several_gpus_come_together(real: EngineUnderTest) -> None:
    if real.gpu is None or real.other_gpu is None:
        pytest.skip("the engine has no CDI spec to inject from")
    variables = started(real, gpus=(real.gpu, real.other_gpu)).run("env").text
    assert real.gpu in variables
    assert real.other_gpu in variables


def test_memory_beyond_the_limit_is_refused_and_the_witness_says_so(real: EngineUnderTest) -> None:
    """Swap does not help; the environment lives on, and `devgw show` can name the reason."""
    spool = started(real)
    assert spool.run("dd if=/dev/zero of=/dev/null bs=300M count=1").code != 0
    wait_until(lambda: "out of memory" in real.engine.witness(ALICE).detail, "the engine heard of it")
    assert real.engine.witness(ALICE).running


def test_processes_beyond_the_limit_are_refused(real: EngineUnderTest) -> None:
    """A fork bomb stays in its own house."""
    limits = Limits(memory_bytes=128 * MIB, cpus=1.0, pids=20, shm_bytes=MIB)
    spool = started(real, limits=limits)
    assert "can't fork" in spool.run("for n in $(seq 60); do sleep 5 & done").text


def test_shared_memory_has_its_own_size(alice: Spool) -> None:
    """Docker's 64 MiB would kill a DataLoader with a bus error."""
    assert alice.run("df -m /dev/shm | grep -c ' 32 '").text == "1\n"


def test_stack_and_open_files_are_raised_as_far_as_the_engine_may(alice: Spool) -> None:
    """More than a plain shell's 1024 files and 8 MiB of stack."""
    assert int(alice.run("ulimit -n").text) > 1024
    assert alice.run("ulimit -s").text.strip() in {"65536", "unlimited"}


def test_without_egress_there_is_only_loopback(alice: Spool) -> None:
    """Invariant 1: no address that anyone could reach, and nothing to reach from it."""
    interfaces = re.findall(r"^\s*(\w+):", alice.run("cat /proc/net/dev").text, re.MULTILINE)
    assert interfaces == ["lo"]
    assert alice.run("cat /proc/net/route").text.count("\n") == 1


def test_loopback_works(alice: Spool) -> None:
    """Jupyter's kernels talk through it."""
    assert (
        alice.run("timeout 10 nc -l -p 7000 >/tmp/got & usleep 300000; echo hi | nc -w 2 127.0.0.1 7000; wait").code
        == 0
    )
    assert alice.run("cat /tmp/got").text == "hi\n"


def test_two_environments_with_egress_cannot_reach_each_other(real: EngineUnderTest) -> None:
    """Invariant 1, tried both ways, with a listener that its own side can reach."""
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
    assert real.engine.witness(ALICE).exit_code == 7


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
        assert not real.engine.witness(ALICE).running
        assert real.engine.witness(ALICE).exit_code == 137
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


def test_a_source_that_vanishes_before_start_is_named(real: EngineUnderTest, tmp_path: Path) -> None:
    """Not an engine's riddle about runc."""
    data = tmp_path / "data"
    data.mkdir()
    spec = real.spec()
    real.engine.create(replace(spec, mounts=(*spec.mounts, Mount(data, "/data"))))
    data.rmdir()
    with pytest.raises(EngineError) as refusal:
        real.engine.start(ALICE)
    assert refusal.value.code == "mount.missing"
