"""A specification worked out for bwrap: what is mounted where, what is unshared, what the variables say."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from gateway.engines.bubblewrap.arguments import arguments
from gateway.engines.bubblewrap.devices import HostDevices
from gateway.engines.bubblewrap.sandbox import Sandbox, sandbox_of
from gateway.engines.bubblewrap.software import PreparedRoot
from gateway.errors import EngineError
from gateway.model import EnvironmentRef, EnvironmentSpec, GpuUuid, Limits, Mount
from tests.engine.made_up_gpus import MADE_UP_GPUS, write_cdi_spec

LIMITS = Limits(memory_bytes=2**30, cpus=1.0, pids=64, shm_bytes=2**20)
GPU = GpuUuid(MADE_UP_GPUS[1])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The small files of a root."""
    tree = tmp_path / "tree"
    for name in ("etc", "home", "opt", "usr"):
        (tree / name).mkdir(parents=True)
    (tree / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (tree / "etc" / "passwd").write_text("root\n")
    (tree / "bin").symlink_to("usr/bin")
    return tree


def worked_out(tree: Path, gpus: tuple[GpuUuid, ...] = (), *, read_only_root: bool = True) -> Sandbox:
    """Work out a sandbox of alice's."""
    write_cdi_spec(tree.parent / "cdi")
    root = PreparedRoot(
        "sha256:0",
        tree,
        ("/bin/init",),
        {"PATH": "/bin", "NVIDIA_VISIBLE_DEVICES": "all"},
        {},
        ((Path("/usr"), "/usr"),),
        ("/usr/local",),
    )
    mounts = (Mount(Path("/srv/passwd"), "/etc/passwd", read_only=True), Mount(Path("/srv/home"), "/home/alice"))
    spec = EnvironmentSpec(
        EnvironmentRef.parse("alice+proj"),
        20001,
        20001,
        "image",
        LIMITS,
        mounts,
        {"A": "b"},
        gpus,
        read_only_root=read_only_root,
    )
    return sandbox_of(spec, root, HostDevices((tree.parent / "cdi",)).of(gpus), tree)


def options_of(sandbox: Sandbox) -> list[str]:
    """Return bwrap's options; every source lies at its target below /staged."""
    targets = [*(bind.target for bind in sandbox.binds), *(one.target for one in sandbox.temporaries)]
    return arguments(sandbox, {target: f"/staged{target}" for target in targets})


@pytest.mark.parametrize("kind", ["user", "pid", "net", "ipc", "uts"])
def test_every_namespace_is_its_own(tree: Path, kind: str) -> None:
    assert f"--unshare-{kind}" in options_of(worked_out(tree))


def test_confinement_is_complete(tree: Path) -> None:
    """No capability, no further user namespace, no life without its supervisor; never the host's network."""
    options = options_of(worked_out(tree))
    assert {"--disable-userns", "--die-with-parent", "--new-session"} <= set(options)
    assert options[options.index("--cap-drop") + 1] == "ALL"
    assert options[options.index("--uid") + 1] == "20001"
    assert "--share-net" not in options


def test_mounts_go_from_the_outside_in(tree: Path) -> None:
    """No mount hides an earlier one, and the root is closed last."""
    options = options_of(worked_out(tree))
    order = [options.index(f"/staged{target}") for target in ("/usr", "/usr/local")]
    assert order == sorted(order)
    assert options[-4:] == ["--remount-ro", "/dev", "--remount-ro", "/"]


def test_a_directory_with_a_mount_in_it_is_laid_out_entry_by_entry(tree: Path) -> None:
    """/etc stays open for the mounted passwd, which takes the place of the root's own; /opt is bound whole."""
    binds = {bind.target: bind for bind in worked_out(tree).binds}
    assert "/etc" not in binds
    assert binds["/etc/hosts"].source == str(tree / "etc" / "hosts")
    assert binds["/etc/passwd"].source == "/srv/passwd"
    assert (binds["/etc/passwd"].access, binds["/home/alice"].access, binds["/opt"].access) == ("read", "write", "read")


def test_a_writable_root_is_not_closed(tree: Path) -> None:
    sandbox = worked_out(tree, read_only_root=False)
    assert options_of(sandbox)[-2:] == ["--remount-ro", "/dev"]
    assert {bind.target: bind.access for bind in sandbox.binds}["/usr"] == "read"


def test_without_a_gpu_the_images_wish_is_overruled(tree: Path) -> None:
    assert worked_out(tree).variables == {"PATH": "/bin", "A": "b", "NVIDIA_VISIBLE_DEVICES": "void"}


def test_a_leased_gpu_brings_its_own_node_and_no_other(tree: Path) -> None:
    """Invariant 11, and CUDA is told the same UUID."""
    sandbox = worked_out(tree, (GPU,))
    nodes = [bind.target for bind in sandbox.binds if bind.access == "device"]
    assert nodes == ["/dev/nvidia1"]
    assert sandbox.variables["CUDA_VISIBLE_DEVICES"] == sandbox.variables["NVIDIA_VISIBLE_DEVICES"] == GPU


def test_a_sandbox_survives_its_way_to_the_supervisor(tree: Path) -> None:
    sandbox = worked_out(tree, (GPU,))
    assert Sandbox.read(json.loads(json.dumps(asdict(sandbox)))) == sandbox


def test_the_driver_names_a_gpus_node_where_no_cdi_spec_does(tmp_path: Path) -> None:
    """/proc/driver/nvidia has UUID and minor number; a UUID it does not have is refused."""
    card = tmp_path / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text(f"Model: \t X\nGPU UUID: \t {GPU}\nDevice Minor: \t 3\n")
    devices = HostDevices((), tmp_path / "gpus")
    assert devices.of((GPU,)).nodes[0] == ("/dev/nvidia3", "/dev/nvidia3")
    with pytest.raises(EngineError, match="no GPU"):
        devices.of((GpuUuid("GPU-ffffffff-ffff-4fff-8fff-ffffffffffff"),))
