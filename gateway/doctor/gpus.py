"""Judges the GPUs themselves: MIG layout, who else works on them, and whether the driver stays loaded."""

from collections.abc import Iterator, Mapping

from gateway.doctor.facts import GpuProcess
from gateway.doctor.finding import Finding, Unasked, failure, judged, ok, unknown, warning
from gateway.gpus.sensors import Measurement, Sensors
from gateway.model import EnvironmentRef, GpuUuid

_ASK_STORE = "run 'devgw doctor' as the gateway's account"


def judge_gpus(
    sensors: Sensors, processes: tuple[GpuProcess, ...] | Unasked, leases: Mapping[GpuUuid, EnvironmentRef] | Unasked
) -> Iterator[Finding]:
    """Judge what the driver tells of its GPUs."""
    whole = [device for device in sensors.devices if device.parent is None]
    yield judge_persistence(whole)
    yield judge_mig(sensors)
    yield judged("gpu.leases", leases, lambda held: judge_leases(sensors, held), _ASK_STORE)
    if isinstance(leases, Unasked):
        yield unknown("gpu.processes", f"could not be asked: {leases.why}", _ASK_STORE)
    else:
        held = leases
        yield judged(
            "gpu.processes",
            processes,
            lambda found: judge_processes(found, held),
            "run 'devgw doctor' as root while the engine answers",
        )


def judge_persistence(whole: list[Measurement]) -> Finding:
    """Without persistence the driver is unloaded between jobs: slow starts, and settings are forgotten."""
    check = "gpu.persistence"
    if any(device.is_persistent is None for device in whole):
        return unknown(check, "the driver does not tell its persistence mode", "'nvidia-smi -q -d PERFORMANCE' may")
    off = [device.index for device in whole if not device.is_persistent]
    if off:
        return warning(
            check,
            f"persistence mode is off on GPU {', '.join(off)}: the driver is unloaded between jobs",
            "'systemctl enable --now nvidia-persistenced'",
        )
    return ok(check, "persistence mode is on")


def judge_mig(sensors: Sensors) -> Finding:
    """A GPU in MIG mode without slices cannot be leased; a pending mode bites at the next reset."""
    check = "gpu.mig"
    parents = {device.parent for device in sensors.devices if device.parent is not None}
    switched = [device for device in sensors.devices if device.mig_mode is not None]
    for device in switched:
        now, later = device.mig_mode or (False, False)
        if now != later:
            state = "on" if later else "off"
            return warning(
                check,
                f"MIG on GPU {device.index} will be {state} after its next reset",
                f"end what runs there, then 'nvidia-smi --gpu-reset -i {device.index}'",
            )
        if now and device.uuid not in parents:
            return warning(
                check,
                f"GPU {device.index} is in MIG mode and has no slices, so nobody can get it",
                "make slices with 'nvidia-mig-parted apply', and have its service do so at boot",
            )
    slices = sum(device.parent is not None for device in sensors.devices)
    if not slices:
        return ok(check, "no GPU is in MIG mode")
    return ok(check, f"{slices} slices on {len(parents)} GPU(s); a reboot loses them unless a service makes them anew")


def judge_leases(sensors: Sensors, leases: Mapping[GpuUuid, EnvironmentRef]) -> Finding:
    """What is leased must be there: a layout or a card that changed under a lease."""
    check = "gpu.leases"
    gone = sorted(f"{uuid} ({leases[uuid]})" for uuid in leases.keys() - sensors.by_uuid().keys())
    if gone:
        return failure(
            check,
            f"leased and no longer on this host: {', '.join(gone)}",
            "restore the MIG layout or the card, or stop these environments",
        )
    return ok(check, "every leased GPU is on this host" if leases else "nothing is leased")


def judge_processes(processes: tuple[GpuProcess, ...], leases: Mapping[GpuUuid, EnvironmentRef]) -> Finding:
    """A process outside every environment, or in one that does not hold the GPU, takes what was promised to another."""
    check = "gpu.processes"
    foreign = [one for one in processes if one.environment is None]
    trespassing = [one for one in processes if one.environment is not None and leases.get(one.gpu) != one.environment]
    if trespassing:
        shown = ", ".join(f"{one.environment} (pid {one.pid}) on {one.gpu}" for one in trespassing[:4])
        return failure(
            check, f"an environment uses a GPU it does not hold: {shown}", "'devgw restart' it, and report it"
        )
    if foreign:
        shown = ", ".join(f"{one.name or 'a process'} (pid {one.pid}) on {one.gpu}" for one in foreign[:4])
        return warning(
            check,
            f"outside every environment, on a GPU: {shown}",
            "end them, or keep that GPU out of devgw",
        )
    return ok(check, "every process on a GPU is in the environment that holds it")
