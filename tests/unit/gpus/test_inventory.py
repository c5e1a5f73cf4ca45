"""The inventory, asked through nvidia-ml-py with a stand-in for the driver's library."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.gpus.inventory import FirstInventory, NoInventory, NvmlInventory, inventory_of
from gateway.gpus.reading import Reading
from gateway.model import Gpu, GpuUuid
from tests.support.nvml_standin.library import build, run_python

Read = Callable[..., Reading]
READ = """
from dataclasses import asdict
from gateway.gpus.inventory import NvmlInventory
print(asdict(NvmlInventory().read()))
"""
READ_TWICE = READ + "\nprint(NvmlInventory().read() == NvmlInventory().read())\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the stand-in, built once."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def read(library: Path, tmp_path: Path) -> Read:
    """Return a function that reads a host described by the stand-in's lines."""

    def reading(*lines: str) -> Reading:
        facts = tmp_path / "facts"
        facts.write_text("\n".join(lines) + "\n")
        return reading_in(run_python(READ, library, facts))

    return reading


def reading_in(output: str) -> Reading:
    """Turn the printed Reading back into one."""
    fields = ast.literal_eval(output.splitlines()[0])
    return Reading(**{**fields, "gpus": tuple(Gpu(**gpu) for gpu in fields["gpus"])})


def uuid(number: int, kind: str = "GPU") -> str:
    return f"{kind}-{number:08d}-1111-4222-8333-444444444444"


def test_eight_gpus_are_listed_by_uuid(read: Read) -> None:
    """Name, memory and nvidia-smi's index come along."""
    found = read("driver 570.124.06", *(f"gpu {uuid(n)} 143771 0 NVIDIA H200" for n in range(8)))
    assert found.source == "nvml"
    assert found.driver_version == "570.124.06"
    assert [gpu.uuid for gpu in found.gpus] == [uuid(n) for n in range(8)]
    assert found.gpus[7] == Gpu(GpuUuid(uuid(7)), "NVIDIA H200", 143771 * 2**20, "7")


def test_a_gpu_in_mig_mode_is_listed_by_its_slices(read: Read) -> None:
    """The whole GPU cannot be leased then; empty places of the driver's table are skipped."""
    found = read(
        f"gpu {uuid(0)} 81559 1 NVIDIA H100 80GB HBM3",
        f"slice 0 0 {uuid(10, 'MIG')} 40448 3 3 NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        f"slice 0 5 {uuid(11, 'MIG')} 9984 1 1 NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        f"gpu {uuid(1)} 81559 0 NVIDIA H100 80GB HBM3",
    )
    assert [(gpu.uuid, gpu.index, gpu.mig_profile) for gpu in found.gpus] == [
        (uuid(10, "MIG"), "0:0", "3g.40gb"),
        (uuid(11, "MIG"), "0:1", "1g.10gb"),
        (uuid(1), "1", ""),
    ]


@pytest.mark.parametrize(
    ("facts", "profile"),
    [
        ("9984 1 1 NVIDIA H100 80GB HBM3", "1g.10gb"),
        ("20096 2 2 NVIDIA H100 80GB HBM3", "2g.20gb"),
        ("20096 2 1 NVIDIA H100 80GB HBM3", "1c.2g.20gb"),
        ("9984 1 1 NVIDIA H100 MIG 1g.10gb+me", "1g.10gb+me"),
    ],
)
def test_a_slices_profile_is_told_by_name_or_by_its_parts(read: Read, facts: str, profile: str) -> None:
    """Some drivers leave the profile out of the name."""
    found = read(f"gpu {uuid(0)} 81559 1 NVIDIA H100 80GB HBM3", f"slice 0 0 {uuid(1, 'MIG')} {facts}")
    assert found.gpus[0].mig_profile == profile


def test_mig_mode_without_slices_gives_nothing_to_lease(read: Read) -> None:
    assert read(f"gpu {uuid(0)} 81559 1 NVIDIA A100").gpus == ()


def test_a_gpu_that_knows_no_mig_is_whole(read: Read) -> None:
    """NVML says 'not supported' for those before Ampere."""
    assert [gpu.uuid for gpu in read(f"gpu {uuid(0)} 15360 -1 Tesla T4").gpus] == [uuid(0)]


def test_memory_that_cannot_be_told_is_zero(read: Read) -> None:
    """GPUs that share the host's memory."""
    assert read(f"gpu {uuid(0)} 0 -1 NVIDIA GB10").gpus[0].memory_bytes == 0


def test_a_gpu_that_fell_off_the_bus_leaves_the_others(read: Read) -> None:
    """It is a note, so that `devgw gpus` can say why there are only seven."""
    found = read(f"gpu {uuid(0)} 81559 0 NVIDIA A100", f"gpu {uuid(1)} 81559 0 NVIDIA A100", "lost 0")
    assert [gpu.uuid for gpu in found.gpus] == [uuid(1)]
    assert found.notes[0].startswith("GPU 0: ")


@pytest.mark.parametrize("status", [9, 18])
def test_a_driver_that_does_not_answer_is_a_note(read: Read, status: int) -> None:
    """Not loaded, or of another version than the library: the reason is kept, nothing is raised."""
    found = read(f"init {status}")
    assert (found.source, found.gpus) == ("none", ())
    assert found.notes[0].startswith("NVML: ")


def test_readings_can_be_repeated(library: Path, tmp_path: Path) -> None:
    """Each opens the library and closes it again."""
    facts = tmp_path / "facts"
    facts.write_text(f"gpu {uuid(0)} 81559 0 NVIDIA A100\n")
    assert run_python(READ_TWICE, library, facts).splitlines()[1] == "True"


def test_a_host_without_the_library_has_no_gpu_and_says_why(tmp_path: Path) -> None:
    """The linker looks in an empty directory first, and this host may have a driver: only a failure is described."""
    found = reading_in(run_python(READ, tmp_path, tmp_path / "none"))
    assert found.gpus or found.notes


class Source:
    """An inventory with a fixed answer."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def read(self) -> Reading:
        return self._reading


A_GPU = Gpu(GpuUuid(uuid(0)), "NVIDIA A100")


def test_the_first_source_with_gpus_is_taken_and_earlier_reasons_are_kept() -> None:
    first = FirstInventory(Source(Reading("none", notes=("no driver",))), Source(Reading("cdi", (A_GPU,), ("two",))))
    assert first.read() == Reading("cdi", (A_GPU,), ("no driver", "two"))


def test_without_any_source_all_reasons_are_told() -> None:
    first = FirstInventory(Source(Reading("none", notes=("no driver",))), Source(Reading("cdi", notes=("no spec",))))
    assert first.read() == Reading("none", notes=("no driver", "no spec"))


def test_the_setting_chooses_the_source(tmp_path: Path) -> None:
    assert isinstance(inventory_of("nvml", ()), NvmlInventory)
    assert isinstance(inventory_of("none", ()), NoInventory)
    assert isinstance(inventory_of("auto", ()), FirstInventory)
    assert inventory_of("cdi", (tmp_path,)).read().source == "cdi"
    assert inventory_of("none", ()).read().notes == ("the setting gpus.inventory is 'none'",)
