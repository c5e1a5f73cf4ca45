"""Processes known for certain, limits in words of the kernel, logs of bounded size, and the system call filter."""

import fcntl
import os
import resource
import signal
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.bubblewrap import order
from gateway.engines.bubblewrap.cgroups import Cgroups
from gateway.engines.bubblewrap.log import Log, last_lines
from gateway.engines.bubblewrap.process import Process
from gateway.engines.bubblewrap.seccomp import filter_program
from gateway.engines.bubblewrap.software import PreparedRoots
from gateway.errors import EngineError, NotFoundError
from gateway.model import Limits

LIMITS = Limits(memory_bytes=2**30, cpus=1.5, pids=64, shm_bytes=2**20)


def test_a_pid_alone_is_nobody() -> None:
    """A process that got the pid of another, or the same pid in another boot, is neither alive nor signalled."""
    own = Process.own()
    assert own.is_alive()
    for other in (replace(own, started=own.started + 1), replace(own, boot="another boot")):
        assert not other.is_alive()
        assert not other.send(signal.SIGKILL)


def test_a_process_that_ended_is_not_alive_although_nobody_reaped_it() -> None:
    child = subprocess.Popen(["sleep", "60"])
    known = Process.of(child.pid)
    assert known is not None
    assert known.send(signal.SIGKILL)
    assert known.wait(5)
    assert Process.of(child.pid) is None
    child.wait(timeout=60)


def test_a_supervisor_is_heard_through_a_descriptor_of_any_number() -> None:
    """A gateway with many connections has descriptors from 1024 on, which select(2) does not know."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    reading, writing = os.pipe()
    high = fcntl.fcntl(reading, fcntl.F_DUPFD_CLOEXEC, 1500)
    try:
        os.write(writing, b"a refusal")
        os.close(writing)
        assert order._answer(high) == b"a refusal"
    finally:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))


def test_limits_are_written_in_v2s_words(tmp_path: Path) -> None:
    """Only files the kernel shows are written, so that a controller that is off is no error."""
    group = tmp_path / "unit"
    group.mkdir()
    for name in ("memory.max", "cpu.max", "pids.max"):
        (group / name).touch()
    assert Cgroups("v2", "", tmp_path).make("unit", LIMITS) == (group,)
    assert [(group / name).read_text() for name in ("memory.max", "cpu.max", "pids.max")] == [
        str(2**30),
        "150000 100000",
        "64",
    ]


def test_a_scope_of_systemds_carries_the_limits() -> None:
    command = Cgroups("systemd", "").prefix("devgw-x", LIMITS)
    assert command[0] == "systemd-run"
    assert {"--scope", "--property=MemoryMax=1073741824", "--property=TasksMax=64", "--property=CPUQuota=150%"} <= set(
        command
    )
    assert ("--user" in command) == (os.geteuid() != 0)


def test_a_log_keeps_two_files_of_bounded_size(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", largest_bytes=100)
    for number in range(50):
        log.write(f"line {number}\n".encode())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200
    assert last_lines(tmp_path / "log", 2) == "line 48\nline 49\n"
    assert last_lines(tmp_path / "absent", 2) == ""


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_a_program_whose_jumps_stay_inside(machine: str) -> None:
    """Each instruction is eight bytes; it ends with a return, and so does every path."""
    program = list(struct.iter_unpack("=HBBI", filter_program(machine)))
    for place, (code, if_true, if_false, _) in enumerate(program):
        if code in {0x15, 0x35, 0x45}:
            assert place + 1 + max(if_true, if_false) < len(program)
    assert program[-1][0] == 0x06


def test_a_machine_without_a_filter_gets_no_environments() -> None:
    with pytest.raises(EngineError, match="riscv64"):
        filter_program("riscv64")


def test_a_root_made_for_another_python_is_not_found(tmp_path: Path) -> None:
    """After an upgrade of the distribution the packages would not be seen: say so, and what to type."""
    roots = PreparedRoots(tmp_path)
    (tmp_path / "one").mkdir()
    manifest = {
        "digest": "sha256:1",
        "command": ["x"],
        "labels": {"org.devgw.x": "1"},
        "needs": [str(tmp_path / "python3.9")],
    }
    roots.write("one", manifest)
    roots.name("devgw/env:cpu", "one")
    with pytest.raises(NotFoundError, match=r"python3\.9 is gone") as refusal:
        roots.find("devgw/env:cpu")
    assert refusal.value.code == "image.outdated"
    (tmp_path / "python3.9").touch()
    assert roots.find("devgw/env:cpu").digest == "sha256:1"
