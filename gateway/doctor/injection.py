"""Judges how a GPU gets into an environment: the toolkit, the CDI specs, and the traps of the older way."""

from collections.abc import Iterator

from gateway.doctor.facts import CdiFacts, CdiSpec, ToolkitFacts
from gateway.doctor.finding import Finding, Unasked, failure, judged, ok, unknown, warning
from gateway.doctor.versions import TOOLKIT_CVES, is_older, parse_version, text_of
from gateway.engines.diagnostics import EngineFacts
from gateway.gpus.sensors import Sensors

_KIND = "nvidia.com/gpu"
_ASK_ENGINE = "start the engine, then ask again"
_REFRESH = "'systemctl restart nvidia-cdi-refresh', or 'nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml'"


def judge_injection(
    toolkit: ToolkitFacts, cdi: CdiFacts, engine: EngineFacts | Unasked, sensors: Sensors
) -> Iterator[Finding]:
    """Judge toolkit, specs and engine together."""
    if isinstance(engine, EngineFacts) and not engine.is_daemon:
        yield judge_way(engine)
        return
    yield judge_toolkit(toolkit)
    yield judge_specs(cdi, sensors)
    yield judged("engine.injection", engine, judge_way, _ASK_ENGINE)
    yield judged("toolkit.variable", engine, lambda found: judge_variable_trap(toolkit, found), _ASK_ENGINE)
    yield judged("engine.cgroup-driver", engine, judge_cgroup_driver, _ASK_ENGINE)


def judge_toolkit(toolkit: ToolkitFacts) -> Finding:
    """Compare nvidia-container-toolkit with the versions in which its known holes were closed."""
    check = "toolkit.version"
    if not toolkit.version:
        return failure(
            check, "nvidia-container-toolkit is not installed", "install nvidia-container-toolkit, 1.18 or newer"
        )
    version = parse_version(toolkit.version)
    if version is None:
        return unknown(check, f"{toolkit.version!r} is no version", "'nvidia-ctk --version' should print one")
    open_holes = [(cve, what, fixed) for fixed, cve, what in TOOLKIT_CVES if is_older(version, fixed)]
    if open_holes:
        cves = ", ".join(cve for cve, _, _ in open_holes)
        _, what, fixed = open_holes[-1]
        return failure(
            check,
            f"nvidia-container-toolkit {toolkit.version} has {cves}: {what}",
            f"update it to {text_of(fixed)} or newer",
        )
    return ok(check, f"nvidia-container-toolkit {toolkit.version} has none of the holes devgw knows")


def judge_specs(cdi: CdiFacts, sensors: Sensors) -> Finding:
    """Hold the CDI specs against the driver and the GPUs of this moment."""
    check, places = "cdi.specs", ", ".join(map(str, cdi.directories)) or "no directory"
    if cdi.unreadable:
        return failure(check, f"{cdi.unreadable[0]} cannot be read as a CDI spec", _REFRESH)
    if not cdi.specs:
        return failure(check, f"no CDI spec of {_KIND} in {places}", _REFRESH)
    if sensors.error:
        return unknown(
            check, f"the specs name {_named(cdi)} devices; NVML: {sensors.error}", "make 'nvidia-smi' work on the host"
        )
    stale = [spec for spec in cdi.specs if spec.driver and spec.driver != sensors.driver]
    if stale:
        return failure(check, f"{stale[0].path} is of driver {stale[0].driver}, {sensors.driver} is loaded", _REFRESH)
    return _judge_names(check, cdi, sensors)


def judge_way(engine: EngineFacts) -> Finding:
    """CDI is the way; the runtime hook works and can lose a GPU; without both there is none."""
    check = "engine.injection"
    if engine.gpu_injection == "cdi":
        return ok(
            check,
            f"{engine.name} injects GPUs by CDI"
            + (f" from {', '.join(engine.cdi_directories)}" if engine.cdi_directories else ""),
        )
    fix = 'set {"features": {"cdi": true}} in daemon.json (Docker 25 to 28.1), or update Docker to 28.2 or newer'
    if engine.gpu_injection == "runtime-hook":
        return warning(check, f"{engine.name} injects GPUs through the runtime hook, which can lose them", fix)
    return failure(check, f"{engine.name} has neither CDI nor an nvidia runtime: it cannot inject a GPU", fix)


def judge_variable_trap(toolkit: ToolkitFacts, engine: EngineFacts) -> Finding:
    """With nvidia as default runtime, whoever chooses a variable or an image chooses GPUs."""
    check = "toolkit.variable"
    if engine.default_runtime != "nvidia":
        return ok(check, f"the default runtime is '{engine.default_runtime or 'runc'}', which obeys no variable")
    fix = "set accept-nvidia-visible-devices-envvar-when-unprivileged = false, or default-runtime back to runc"
    if toolkit.accepts_variable:
        return failure(
            check, "the default runtime is 'nvidia' and it obeys NVIDIA_VISIBLE_DEVICES of any container's image", fix
        )
    return warning(
        check,
        "the default runtime is 'nvidia': containers that devgw did not make may ask it for GPUs",
        "set default-runtime back to runc in daemon.json",
    )


def judge_cgroup_driver(engine: EngineFacts) -> Finding:
    """`systemctl daemon-reload` rewrites the device rules of containers whose GPU came through the hook."""
    check = "engine.cgroup-driver"
    if engine.gpu_injection == "runtime-hook" and engine.cgroup_driver == "systemd":
        return failure(
            check,
            "GPUs come through the hook under the systemd cgroup driver: 'systemctl daemon-reload' takes them away",
            'switch to CDI, or set {"exec-opts": ["native.cgroupdriver=cgroupfs"]} in daemon.json',
        )
    return ok(check, f"cgroup driver '{engine.cgroup_driver}' with injection by {engine.gpu_injection}")


def _judge_names(check: str, cdi: CdiFacts, sensors: Sensors) -> Finding:
    named = {name.lower() for spec in cdi.specs for name in spec.devices}
    in_mig_mode = {device.parent for device in sensors.devices if device.parent is not None}
    leasable = [device for device in sensors.devices if device.uuid not in in_mig_mode]
    missing = [device.uuid for device in leasable if device.uuid.lower() not in named]
    if missing and not any(name.startswith(("gpu-", "mig-")) for name in named):
        return failure(
            check, "the specs name GPUs by index only", "generate them with --device-name-strategy=uuid beside index"
        )
    if missing:
        return failure(check, f"the specs do not know {', '.join(missing[:4])}", _REFRESH)
    known = {str(device.uuid).lower() for device in sensors.devices}
    gone = sorted(name for name in named if name.startswith(("gpu-", "mig-")) and name not in known)
    if gone:
        return warning(check, f"the specs name {', '.join(gone[:4])}, which this host no longer has", _REFRESH)
    return ok(check, f"the specs know every GPU and slice ({len(leasable)}), for driver {sensors.driver}")


def _named(cdi: CdiFacts) -> int:
    return len(_devices(cdi.specs))


def _devices(specs: tuple[CdiSpec, ...]) -> frozenset[str]:
    return frozenset(name for spec in specs for name in spec.devices if name != "all")
