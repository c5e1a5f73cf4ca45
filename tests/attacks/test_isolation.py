"""What mallory tries from inside her environment: against the host, the gateway and alice's environment."""

import os
from pathlib import Path

import pytest

from gateway.model import Limits
from tests.attacks.conftest import ALICE, MALLORY, Neighbours
from tests.contract.inside import wait_until
from tests.contract.subject import MIB, started


@pytest.mark.attack("I1", "another user's home: absent")
def test_another_users_home_is_not_there(neighbours: Neighbours) -> None:
    """Neither by name nor among anything that is mounted."""
    with neighbours.alice_notices_nothing():
        assert neighbours.mallory.run("cat /home/alice/secret").code != 0
        assert neighbours.mallory.run("ls /home").text == "mallory\n"
        assert neighbours.mallory.run(f"ls {neighbours.under_test.directory}/home.alice").code != 0


@pytest.mark.attack("I2", "another user's processes: neither seen nor signalled")
def test_another_users_processes_are_neither_seen_nor_signalled(neighbours: Neighbours) -> None:
    """Alice's sleep is in no /proc of mallory's, and `kill -9 -1` ends nobody else's."""
    neighbours.alice.run("sleep 98765 </dev/null >/dev/null 2>&1 &")
    with neighbours.alice_notices_nothing():
        assert "98765" not in neighbours.mallory.run("cat /proc/[0-9]*/cmdline").text
        (neighbours.under_test.run_directory(MALLORY) / "kill.sh").write_text("busybox kill -9 -1")
        wait_until(lambda: not neighbours.under_test.engine.observe(MALLORY).running, "mallory killed all she could")
        assert "98765" in neighbours.alice.run("cat /proc/[0-9]*/cmdline | busybox tr '\\0' ' '").text


@pytest.mark.attack("I3", "ptrace of the host's processes: nothing there to trace")
def test_processes_of_the_host_cannot_be_traced(neighbours: Neighbours) -> None:
    """The pids of this test and of the host's first process mean nothing inside, or somebody else."""
    with neighbours.alice_notices_nothing():
        outcome = neighbours.attempt("ptrace", str(os.getpid()))
        assert (outcome.code, outcome.text) == (1, "No such process\n")


@pytest.mark.attack("I4", "another user's loopback: not reached")
def test_another_users_loopback_cannot_be_reached(neighbours: Neighbours) -> None:
    """A notebook or debugger without a password is alice's alone."""
    neighbours.alice.run("nc -ll -p 7000 -e /bin/echo private </dev/null >/dev/null 2>&1 &")
    wait_until(lambda: "private" in neighbours.alice.run("nc -w 2 127.0.0.1 7000").text, "alice's service answered")
    with neighbours.alice_notices_nothing():
        for address in ("127.0.0.1", "127.0.0.2", "::1"):
            assert "private" not in neighbours.mallory.run(f"timeout 3 nc -w 2 {address} 7000").text


@pytest.mark.attack("I5", "the host's files, the Docker socket among them: absent")
@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        "/root",
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/systemd",
        "/var/lib/devgw",
        "/etc/ssh/ssh_host_ed25519_key",
    ],
)
def test_the_hosts_own_files_are_not_there(neighbours: Neighbours, path: str) -> None:
    """Not refused: absent."""
    outcome = neighbours.mallory.run(f"ls -d {path}/. || cat {path}")
    assert outcome.code != 0
    assert "No such file" in outcome.text


@pytest.mark.attack("I6", "the gateway's state: absent")
def test_the_gateways_state_is_not_there(neighbours: Neighbours) -> None:
    """The directory that holds keys, database and everybody's volumes."""
    with neighbours.alice_notices_nothing():
        assert neighbours.mallory.run(f"ls {neighbours.under_test.directory}").code != 0
        assert str(neighbours.under_test.directory) not in neighbours.mallory.run("cat /proc/[0-9]*/cmdline").text


@pytest.mark.attack("I7", "mount, raw sockets, device nodes, namespaces, bpf, keyrings: refused")
@pytest.mark.parametrize(
    "attempt",
    [
        *("mount", "remount", "umount /run/devgw", "fsopen", "unshare-user", "clone-user", "chroot"),  # the file system
        *("raw-socket", "packet-socket"),  # the network
        *("disk-node", "gpu-node"),  # devices
        *("become-root", "keyring", "bpf", "hostname", "reboot"),  # the kernel
    ],
)
def test_a_call_that_leads_outside_is_refused(neighbours: Neighbours, attempt: str) -> None:
    """By the lack of capabilities, by the system call filter, or by both."""
    with neighbours.alice_notices_nothing():
        outcome = neighbours.attempt(*attempt.split())
    assert outcome.code == 1
    assert outcome.text.strip() in {"Operation not permitted", "Permission denied", "Invalid argument"}


@pytest.mark.attack("I8", "devices of the host, a second GPU: absent")
def test_no_device_of_the_host_is_there(neighbours: Neighbours) -> None:
    """Only what every program expects, and no second GPU."""
    allowed = {
        "console",
        "core",
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "tty",
        "urandom",
        "zero",
    }
    seen = set(neighbours.mallory.run("ls /dev").text.split()) - {"stdin", "stdout", "stderr"}
    assert seen <= allowed


@pytest.mark.attack("I9", "a fork bomb: stops at the limit of processes")
def test_a_fork_bomb_stays_at_home(neighbours: Neighbours) -> None:
    """The pids limit stops it, alice can still fork, and `stop` ends it; an engine that cannot limit says so."""
    if neighbours.under_test.unlimited:
        assert "processes are NOT enforced" in " ".join(neighbours.under_test.engine.report().notes)
        return
    with neighbours.alice_notices_nothing():
        # a moment later, so that the shell can still say that it has started the bomb
        bomb = "sleep 1; bomb() { bomb | bomb & }; bomb"
        neighbours.mallory.run(f"sh -c '{bomb}' </dev/null >/dev/null 2>/run/devgw/words &")
        words = neighbours.under_test.run_directory(MALLORY) / "words"
        wait_until(lambda: "can't fork" in words.read_text(), "the limit was met")
    neighbours.under_test.engine.stop(MALLORY, 1)
    assert not neighbours.under_test.engine.observe(MALLORY).running


@pytest.mark.attack("I10", "a memory bomb: dies alone")
def test_a_memory_bomb_stays_at_home(neighbours: Neighbours) -> None:
    """It is killed at its own limit, and the engine can tell why; an engine that cannot limit says so."""
    if neighbours.under_test.unlimited:
        assert "limits on memory" in " ".join(neighbours.under_test.engine.report().notes)
        return
    with neighbours.alice_notices_nothing():
        assert neighbours.mallory.run("dd if=/dev/zero of=/dev/null bs=300M count=1").code != 0
    observe = neighbours.under_test.engine.observe
    wait_until(lambda: "out of memory" in observe(MALLORY).detail, "the engine heard of it")
    assert observe(ALICE).detail == ""


@pytest.mark.attack("I11", "filling `/tmp` and `/dev/shm`: stays at home")
@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/run"])
def test_filling_a_temporary_file_system_stays_at_home(neighbours: Neighbours, place: str) -> None:
    """Each has a size of its own; alice can still write to hers."""
    with neighbours.alice_notices_nothing():
        outcome = neighbours.mallory.run(f"dd if=/dev/zero of={place}/filler bs=1M count=500; rm {place}/filler")
        assert "No space left" in outcome.text or "Out of memory" in outcome.text or "Killed" in outcome.text


@pytest.mark.attack("I12", "filling the socket directory: the neighbour's files stay apart")
def test_filling_the_socket_directory_stays_at_home(neighbours: Neighbours) -> None:
    """Thousands of files beside her own sockets: alice's directory and what is above both are untouched."""
    with neighbours.alice_notices_nothing():
        outcome = neighbours.mallory.run("cd /run/devgw; for n in $(seq 3000); do echo x >f$n; done; ls | wc -l")
        assert int(outcome.text) > 3000
        assert not [path for path in neighbours.under_test.run_directory(ALICE).iterdir() if path.name.startswith("f")]
        assert "mallory" in str(neighbours.under_test.run_directory(MALLORY))


@pytest.mark.attack("I13", "a link in one's own directory: leads nowhere inside")
def test_a_link_in_her_own_directory_leads_nowhere_inside(neighbours: Neighbours) -> None:
    """A path of the host's, followed inside, is a path inside."""
    secret = Path(neighbours.under_test.directory) / "home.alice" / "secret"
    with neighbours.alice_notices_nothing():
        assert neighbours.mallory.run(f"busybox ln -s {secret} /run/devgw/link; cat /run/devgw/link").code != 0


@pytest.mark.attack("I14", "limits: each environment has its own")
def test_a_busy_neighbour_has_its_own_limits_file(neighbours: Neighbours) -> None:
    """Limits are set for each environment, not for all of them together."""
    if neighbours.under_test.unlimited:
        assert "NOT enforced" in " ".join(neighbours.under_test.engine.report().notes)
        return
    small = Limits(memory_bytes=128 * MIB, cpus=1.0, pids=20, shm_bytes=MIB)
    third = started(neighbours.under_test, "carol", limits=small)
    with neighbours.alice_notices_nothing():
        assert "can't fork" in third.run("for n in $(seq 60); do sleep 5 & done").text
        assert neighbours.alice.run("for n in $(seq 30); do sleep 0 & done; wait; echo fine").text == "fine\n"
