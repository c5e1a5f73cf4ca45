"""What the doctor reads of a machine: trees that stand for `/`, real files, real sockets, the real kernel's clock."""

import socket
from pathlib import Path

import pytest

from gateway.doctor.finding import Unasked
from gateway.doctor.gather.machine import clock_is_synchronised, machine_facts
from gateway.doctor.gather.nvidia import cdi_facts, driver_facts, gpu_processes, toolkit_facts
from gateway.doctor.gather.site import port_holder
from gateway.errors import StoreError
from gateway.gpus.sensors import Measurement, Process, Sensors
from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.database import Database
from gateway.store.integrity import integrity_faults

ALICE = EnvironmentRef.parse("alice")
NOTHING = Sensors(error="none")
CONTAINER = "0123456789abcdef" * 4


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 04:21:08 UTC 2025",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build",
    ],
)
def test_module_libraries_and_cards_are_read(tmp_path: Path, line: str) -> None:
    """Both of NVIDIA's kernel modules; a sound card's PCI function is no GPU, another vendor's GPU is none of ours."""
    write(tmp_path, "proc/driver/nvidia/version", line)
    for name in ("libcuda.so.570.124.06", "libnvidia-ml.so.570.124.06", "libcuda.so.1", "libcudart.so.12.8.90"):
        write(tmp_path, f"usr/lib/x86_64-linux-gnu/{name}", "")
    for number, (vendor, kind) in enumerate([("0x10de", "0x030200"), ("0x10de", "0x040300"), ("0x8086", "0x030000")]):
        write(tmp_path, f"sys/bus/pci/devices/{number}/vendor", vendor)
        write(tmp_path, f"sys/bus/pci/devices/{number}/class", kind)
    found = driver_facts(NOTHING, tmp_path)
    assert (found.pci_gpus, found.module, found.libraries) == (1, "570.124.06", ("570.124.06",))


def test_a_machine_without_any_of_it_has_none(tmp_path: Path) -> None:
    found = driver_facts(NOTHING, tmp_path)
    assert (found.pci_gpus, found.module, found.libraries) == (0, "", ())
    assert (toolkit_facts("no-such-tool", tmp_path).version, cdi_facts([tmp_path / "none"]).specs) == ("", ())


@pytest.mark.parametrize(
    ("config", "accepts"),
    [
        (None, True),
        ("", True),
        ("accept-nvidia-visible-devices-envvar-when-unprivileged = false", False),
        ("accept-nvidia-visible-devices-envvar-when-unprivileged = true", True),
        ("this is [not toml", True),
    ],
)
def test_the_toolkit_tells_version_and_option(tmp_path: Path, config: str | None, accepts: bool) -> None:
    """NVIDIA's default is true, also for a file that is absent or broken."""
    tool = tmp_path / "nvidia-ctk"
    tool.write_text("#!/bin/sh\necho NVIDIA Container Toolkit CLI version 1.17.8\necho commit: f202b80\n")
    tool.chmod(0o755)
    if config is not None:
        write(tmp_path, "etc/nvidia-container-runtime/config.toml", config)
    found = toolkit_facts(str(tool), tmp_path)
    assert (found.version, found.accepts_variable) == ("1.17.8", accepts)


def test_specs_tell_their_devices_and_their_driver(tmp_path: Path) -> None:
    """Specs of other devices are passed over; what is no spec is named."""
    edits = "containerEdits:\n  mounts:\n  - hostPath: /usr/lib64/libcuda.so.570.26\n"
    write(tmp_path, "nvidia.yaml", f"kind: nvidia.com/gpu\ndevices:\n- name: GPU-1\n- name: all\n{edits}")
    write(tmp_path, "net.json", '{"kind": "vendor.com/net", "devices": [{"name": "eth0"}]}')
    write(tmp_path, "broken.yaml", "kind: [")
    found = cdi_facts([tmp_path])
    assert [(spec.devices, spec.driver) for spec in found.specs] == [(frozenset({"GPU-1", "all"}), "570.26")]
    assert found.unreadable == (tmp_path / "broken.yaml",)


def test_a_process_belongs_to_the_environment_whose_container_it_is_in(tmp_path: Path) -> None:
    """Under either cgroup driver; one that has ended meanwhile is nobody's."""
    write(tmp_path, "proc/10/cgroup", f"0::/system.slice/docker-{CONTAINER}.scope\n")
    write(tmp_path, "proc/10/comm", "python\n")
    write(tmp_path, "proc/11/cgroup", f"4:memory:/docker/{CONTAINER[::-1]}\n")
    write(tmp_path, "proc/11/comm", "Xorg\n")
    busy = Measurement(GpuUuid("GPU-1"), "H200", "0", processes=(Process(10, 1), Process(11, 1), Process(12, 1)))
    found = gpu_processes(Sensors(devices=(busy,)), {CONTAINER: ALICE}, tmp_path)
    assert not isinstance(found, Unasked)
    assert [(one.pid, one.name, one.environment) for one in found] == [(10, "python", ALICE), (11, "Xorg", None)]


def test_processes_that_the_driver_does_not_list_could_not_be_asked(tmp_path: Path) -> None:
    silent = Measurement(GpuUuid("GPU-1"), "H200", "0", processes=None)
    assert isinstance(gpu_processes(Sensors(devices=(silent,)), {}, tmp_path), Unasked)


def test_the_kernels_numbers_are_read_and_what_is_hidden_is_unasked(tmp_path: Path) -> None:
    write(tmp_path, "proc/meminfo", "MemTotal:       1024 kB\nMemFree: 1 kB\n")
    write(tmp_path, "proc/sys/kernel/pid_max", "32768\n")
    found = machine_facts([("state", tmp_path / "not/yet/made")], tmp_path)
    assert (found.memory_bytes, found.pid_max) == (2**20, 32768)
    assert isinstance(found.inotify_watches, Unasked)
    assert 0 < found.spaces[0].free_bytes <= found.spaces[0].total_bytes


def test_this_machines_own_kernel_can_be_asked() -> None:
    """Whatever it says of its clock, it says it without privilege."""
    found = machine_facts([("root", Path("/"))])
    assert isinstance(found.memory_bytes, int)
    assert found.memory_bytes > 2**26
    assert isinstance(clock_is_synchronised(), bool)


@pytest.mark.parametrize(
    ("greeting", "holder"),
    [(b"SSH-2.0-devgw\r\n", "devgw"), (b"SSH-2.0-OpenSSH_9.2\r\n", "something that says 'SSH-2.0-OpenSSH_9.2'")],
)
def test_the_holder_of_a_port_is_told_by_its_greeting(greeting: bytes, holder: str) -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with listener.accept()[0] as connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        found = port_holder("127.0.0.1", listener.getsockname()[1])
        thread.join()
    assert found.startswith(holder)


def test_a_free_port_has_no_holder_and_a_bound_one_has() -> None:
    """Bound without listening: a connection is refused, and it cannot be had all the same."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert "in use" in port_holder("127.0.0.1", port)
    assert port_holder("127.0.0.1", port) == ""


def test_a_sound_database_is_whole_and_asking_makes_none(tmp_path: Path) -> None:
    absent, there = (f"sqlite:///{tmp_path}/{name}.db" for name in ("absent", "there"))
    Database(there).revision()
    assert integrity_faults(there) == ""
    assert "is not there" in integrity_faults(absent)
    assert not (tmp_path / "absent.db").exists()


def test_a_damaged_foreign_or_newer_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "devgw.db"
    database = Database(f"sqlite:///{path}")
    with database.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    assert "9999 is newer" in integrity_faults(f"sqlite:///{path}")
    path.write_bytes(b"precious text, no database" * 100)
    assert "not a database" in integrity_faults(f"sqlite:///{path}")
    (tmp_path / "empty.db").touch()
    assert "no tables" in integrity_faults(f"sqlite:///{tmp_path}/empty.db")


def test_a_database_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    """A directory in its place, as when another account owns what is there."""
    (tmp_path / "devgw.db").mkdir()
    with pytest.raises(StoreError) as refused:
        integrity_faults(f"sqlite:///{tmp_path}/devgw.db")
    assert refused.value.code == "store.unusable"
