"""What an environment can and cannot do, seen from inside it. Every engine that runs processes keeps all of it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import EngineError
from gateway.model import EnvironmentRef, Mount
from tests.contract.inside import Output, Spool
from tests.contract.subject import GID, UID, EngineUnderTest, own, started

ALICE = EnvironmentRef.parse("alice")


def status(spool: Spool) -> dict[str, str]:
    """Read /proc/self/status inside."""
    lines = spool.run("cat /proc/self/status").text.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_processes_run_as_the_environments_user(alice: Spool) -> None:
    """Invariant 3: real, effective, saved and file-system ids alike, and no group of root's."""
    read = status(alice)
    assert read["Uid"].split() == [str(UID)] * 4
    assert read["Gid"].split() == [str(GID)] * 4
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
