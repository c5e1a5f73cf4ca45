"""What devgw reads of the driver is what nvidia-smi says of it."""

import pytest

from gateway.gpus.inventory import NvmlInventory
from gateway.gpus.sensors import NvmlSensors
from tests.gpu.conftest import nvidia_smi

pytestmark = pytest.mark.gpu
_MIB = 2**20


def test_every_gpu_and_slice_is_listed_by_its_uuid(host_uuids: list[str]) -> None:
    reading = NvmlInventory().read()
    assert [gpu.uuid for gpu in reading.gpus] == host_uuids
    assert reading.driver_version == nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader").split()[0]


def test_names_and_memory_are_the_drivers_own() -> None:
    """Of whole GPUs; a GPU in MIG mode is not listed itself."""
    told = nvidia_smi("--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits").splitlines()
    rows = {uuid: (name, int(memory)) for uuid, name, memory in (line.split(", ") for line in told)}
    whole = [gpu for gpu in NvmlInventory().read().gpus if not gpu.mig_profile]
    assert {gpu.uuid: (gpu.name, gpu.memory_bytes // _MIB) for gpu in whole} == {
        gpu.uuid: rows[gpu.uuid] for gpu in whole
    }


def test_sensors_tell_what_nvidia_smi_tells() -> None:
    """Capability and persistence do not move between two questions; what does is only asked to be there."""
    fields = "uuid,compute_cap,persistence_mode"
    told = nvidia_smi(f"--query-gpu={fields}", "--format=csv,noheader").splitlines()
    sensors = NvmlSensors().read()
    assert sensors.error == ""
    whole = [device for device in sensors.devices if device.parent is None]
    assert [
        f"{device.uuid}, {'{}.{}'.format(*(device.capability or ()))}, "
        f"{'Enabled' if device.is_persistent else 'Disabled'}"
        for device in whole
    ] == told
    assert all(device.memory_total_bytes and device.power_watts for device in whole)
