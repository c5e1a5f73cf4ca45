"""AMD's GPUs out of made-up trees in the layout of sysfs, and how one gets from there into an environment."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.engines.bubblewrap.devices import HostDevices
from gateway.engines.docker.injection import Injection, device_requests, injection_of
from gateway.errors import EngineError, LeaseError
from gateway.gpu_names import cdi_name, is_amd
from gateway.gpus.amd import AmdInventory
from gateway.gpus.inventory import FirstInventory, inventory_of
from gateway.gpus.leases import Leases
from gateway.model import EnvironmentRef, Gpu, GpuUuid
from tests.fakes.leases import FakeLeaseStore

GIB = 2**30
MI300X = GpuUuid("GPU-62ff75a0ab12cd34")
NVIDIA = GpuUuid("GPU-8fc0f1b4-1111-4222-8333-444444444444")


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def add_node(sysfs: Path, number: int, **values: int) -> Path:
    """One node of the topology: a processor without `unique_id`, else a GPU."""
    node = sysfs / f"class/kfd/kfd/topology/nodes/{number}"
    put(node / "gpu_id", f"{values.get('gpu_id', 40000 + number if 'unique_id' in values else 0)}\n")
    put(node / "properties", "".join(f"{name} {value}\n" for name, value in {"cpu_cores_count": 0, **values}.items()))
    return node


def add_gpu(sysfs: Path, number: int, unique_id: int, name: str = "Instinct MI300X", memory: int = 192 * GIB) -> Path:
    """A GPU and its render node, as the driver of a whole card shows it."""
    minor = 127 + number
    node = add_node(
        sysfs, number, unique_id=unique_id, vendor_id=4098, drm_render_minor=minor, gfx_target_version=90402
    )
    put(sysfs / f"class/drm/renderD{minor}/device/product_name", f"{name}\n")
    put(sysfs / f"class/drm/renderD{minor}/device/mem_info_vram_total", f"{memory}\n")
    return node


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A host with a processor, an MI300X and a Radeon."""
    put(tmp_path / "module/amdgpu/version", "6.14.14\n")
    add_node(tmp_path, 0)
    add_gpu(tmp_path, 1, 0x62FF75A0AB12CD34)
    add_gpu(tmp_path, 2, 0x00000000000000FE, name="AMD Radeon PRO W7900", memory=48 * GIB)
    return tmp_path


def test_every_gpu_has_its_unique_id_name_and_memory(sysfs: Path) -> None:
    """The id is padded to 16 digits, as ROCr writes it; the processor is no GPU."""
    found = AmdInventory(sysfs).read()
    assert found.gpus == (
        Gpu(MI300X, "AMD Instinct MI300X", 192 * GIB, "0"),
        Gpu(GpuUuid("GPU-00000000000000fe"), "AMD Radeon PRO W7900", 48 * GIB, "1"),
    )
    assert (found.source, found.notes, found.driver_version) == ("amd", (), "6.14.14")


def test_a_gpu_without_a_product_name_is_named_by_its_architecture(tmp_path: Path) -> None:
    """And its memory is that of its own heaps; the host's memory beside them is not its own."""
    node = add_node(tmp_path, 1, unique_id=7, gfx_target_version=90010)
    for bank, (heap, size) in enumerate([(0, 512 * GIB), (1, 16 * GIB), (2, 48 * GIB)]):
        put(node / f"mem_banks/{bank}/properties", f"heap_type {heap}\nsize_in_bytes {size}\nflags 0\n")
    assert AmdInventory(tmp_path).read().gpus == (Gpu(GpuUuid(f"GPU-{7:016x}"), "AMD gfx90a", 64 * GIB, "0"),)


@pytest.mark.parametrize("unique_id", [0, 2**64])
def test_a_gpu_that_cannot_be_told_apart_is_a_note(sysfs: Path, unique_id: int) -> None:
    """Without an id of its own a lease would be another card's after a restart; the others can still be leased."""
    add_gpu(sysfs, 3, unique_id)
    found = AmdInventory(sysfs).read()
    assert len(found.gpus) == 2
    assert "KFD node 3: it has no unique_id" in found.notes[0]


def test_partitions_of_one_gpu_are_not_leased(sysfs: Path) -> None:
    """They carry one id; two users would get the same card."""
    add_gpu(sysfs, 3, 0x62FF75A0AB12CD34)
    found = AmdInventory(sysfs).read()
    assert [gpu.uuid for gpu in found.gpus] == ["GPU-00000000000000fe"]
    assert found.notes == (f"AMD GPU {MI300X} is there 2 times: partitions are not leased",)


@pytest.mark.parametrize("damage", ["properties", "gpu_id", "text", "folder"])
def test_a_damaged_node_is_a_note_and_the_others_are_read(sysfs: Path, damage: str) -> None:
    """A GPU that has fallen off the bus leaves such."""
    node = sysfs / "class/kfd/kfd/topology/nodes/1"
    match damage:
        case "properties" | "gpu_id":
            (node / damage).unlink()
        case "text":
            (node / "properties").write_text("unique_id many\n")
        case "folder":
            (node / "gpu_id").unlink()
            (node / "gpu_id").mkdir()
    found = AmdInventory(sysfs).read()
    assert [gpu.uuid for gpu in found.gpus] == ["GPU-00000000000000fe"]
    assert found.notes[0].startswith("AMD GPU of KFD node 1: ")


def test_a_host_without_the_driver_says_so_where_it_was_asked_for(tmp_path: Path) -> None:
    """`auto` asks in passing and has nothing to say."""
    assert "no AMD GPU" in AmdInventory(tmp_path).read().notes[0]
    assert AmdInventory(tmp_path, is_expected=False).read().notes == ()
    assert isinstance(inventory_of("amd", ()), AmdInventory)


def test_amds_gpus_are_leased_by_kind_count_and_id(sysfs: Path) -> None:
    """One holder each, as any other."""
    leases = Leases(FakeLeaseStore(), FirstInventory(AmdInventory(sysfs)), now=lambda: datetime(2026, 5, 3, tzinfo=UTC))
    alice, bob = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob")
    assert leases.lease(alice, "mi300x:1") == (MI300X,)
    for taken in ("mi300x:1", MI300X, "2"):
        with pytest.raises(LeaseError):
            leases.lease(bob, taken)
    assert leases.lease(bob, "GPU-00000000000000fe") == ("GPU-00000000000000fe",)


def test_an_id_says_whose_gpu_it_is() -> None:
    """NVIDIA's are UUIDs, AMD's 16 digits."""
    assert [is_amd(gpu) for gpu in (MI300X, NVIDIA, GpuUuid("MIG-1"), GpuUuid("GPU-62ff75a0ab12cd3z"))] == [
        True,
        *[False] * 3,
    ]
    assert cdi_name(MI300X) == f"amd.com/gpu={MI300X}"
    assert cdi_name(NVIDIA) == f"nvidia.com/gpu={NVIDIA}"


def test_docker_is_asked_for_amds_device_by_cdi_alone() -> None:
    """The hook is NVIDIA's, and a spec that does not know the GPU is stale."""
    info = {"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": [{"Source": "cdi", "ID": f"amd.com/gpu={MI300X}"}]}
    injection = injection_of({**info, "Runtimes": {"nvidia": {}}})
    assert injection.kind == "cdi"
    (request,) = device_requests([MI300X], injection)
    assert (request["Driver"], request["DeviceIDs"]) == ("cdi", [f"amd.com/gpu={MI300X}"])
    for refusing in (Injection("cdi", "", frozenset({"amd.com/gpu=0"})), Injection("runtime-hook", "")):
        with pytest.raises(EngineError) as caught:
            device_requests([MI300X], refusing)
        assert caught.value.code == "gpu.injection"


def test_bubblewrap_gives_the_device_nodes_of_amds_spec(tmp_path: Path) -> None:
    """`/dev/kfd`, which all share, and the render node of this GPU and of no other."""
    kfd = '"containerEdits": {"deviceNodes": [{"path": "/dev/kfd"}]}'
    one = '{"name": "%s", "containerEdits": {"deviceNodes": [{"path": "/dev/dri/renderD%d"}]}}'
    devices = ", ".join([one % (MI300X, 128), one % ("GPU-00000000000000fe", 129)])
    put(tmp_path / "amd.json", f'{{"cdiVersion": "0.6.0", "kind": "amd.com/gpu", {kfd}, "devices": [{devices}]}}')
    found = HostDevices((tmp_path,), driver=tmp_path / "none").of((MI300X,))
    assert found.nodes == (("/dev/kfd", "/dev/kfd"), ("/dev/dri/renderD128", "/dev/dri/renderD128"))
