"""Judges the container engine and the image that environments are made from."""

from collections.abc import Iterator

from gateway.doctor.cluster import judge_cluster
from gateway.doctor.facts import Wish
from gateway.doctor.finding import Finding, Unasked, failure, judged, ok, warning
from gateway.doctor.versions import is_older, parse_version
from gateway.engines.diagnostics import EngineFacts, ImageFacts
from gateway.engines.docker.facts import KEEP_THEM

_ASK_ENGINE = "start the engine, or set engine.docker_url"
_OLDEST_DOCKER = (25,)
_SMALL_MEMLOCK_BYTES = 2**30


def judge_engine(engine: EngineFacts | Unasked, wish: Wish) -> Iterator[Finding]:
    """Judge what the engine says of itself; silence is one failure, not ten."""
    if isinstance(engine, Unasked):
        yield failure("engine.answers", f"no engine answers: {engine.why}", engine.hint or _ASK_ENGINE)
        return
    major, minor = engine.api_version
    api = f", API {major}.{minor}" if engine.is_daemon else ""
    yield ok("engine.answers", f"{engine.name} {engine.version} answers{api}")
    if engine.cluster is not None:
        yield from judge_cluster(engine.cluster, engine)
        return
    yield judge_limits(engine)
    yield judge_root(wish)
    if not engine.is_daemon:
        return
    yield judge_version(engine)
    yield judge_confinement(engine)
    yield judge_memlock(engine)
    yield judge_live_restore(engine)
    yield judge_user_namespaces(engine)


def judge_root(wish: Wish) -> Finding:
    """No engine bounds what is written into an environment's own copy of its image; a read-only one needs no bound."""
    check = "engine.root"
    if not wish.read_only_root:
        return warning(
            check,
            "the root of environments can be written to, and what is written there has no size",
            "set environments.read_only_root to true",
        )
    return ok(check, "the root of environments is read-only: they write to volumes, and to memory of theirs")


def judge_version(engine: EngineFacts) -> Finding:
    """CDI needs Docker 25; API 1.44 makes read-only mounts read-only all the way down, and Podman's is older."""
    check, version = "engine.version", parse_version(engine.version)
    if engine.product == "Podman":
        return warning(
            check,
            f"Podman {engine.version}: what is mounted beneath a read-only dataset stays writable",
            "mount nothing beneath datasets",
        )
    if version is not None and is_older(version, _OLDEST_DOCKER):
        return warning(
            check,
            f"Docker {engine.version} knows no CDI and no recursive read-only mounts",
            "install Docker 26.1 or newer",
        )
    if engine.api_version < (1, 44):
        return warning(
            check,
            "API below 1.44: what is mounted beneath a read-only dataset stays writable",
            "install Docker 26.1 or newer",
        )
    return ok(check, f"{engine.name} {engine.version} has what devgw uses")


def judge_confinement(engine: EngineFacts) -> Finding:
    """No environment is made without seccomp."""
    check = "engine.seccomp"
    if not engine.seccomp:
        return failure(
            check,
            "the engine has no seccomp, so it is given no environments",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        )
    if engine.seccomp == "unconfined":
        return warning(
            check,
            "the daemon's default seccomp profile is 'unconfined'; environments ask for the built-in one",
            "remove seccomp-profile from daemon.json",
        )
    return ok(check, f"seccomp profile '{engine.seccomp}'")


def judge_limits(engine: EngineFacts) -> Finding:
    """A limit that the kernel does not hold lets one environment take all."""
    check = "engine.limits"
    if engine.missing_limits:
        lacking = ", ".join(engine.missing_limits)
        if engine.is_rootless:
            return failure(
                check,
                f"the engine runs without root and does NOT limit {lacking}: one environment can starve the host",
                "boot with 'systemd.unified_cgroup_hierarchy=1' and delegate the cgroup, or run the engine with root",
            )
        return failure(
            check,
            f"the engine cannot limit {lacking}: one environment can starve the others",
            "boot with 'systemd.unified_cgroup_hierarchy=1' (on cgroup v1: 'cgroup_enable=memory swapaccount=1')",
        )
    if engine.cgroup_version == "1":
        return warning(
            check,
            "limits hold, on cgroup v1, which systemd and Docker are giving up",
            "boot with 'systemd.unified_cgroup_hierarchy=1'",
        )
    return ok(check, f"memory, swap, processor time and processes are limited, cgroup v{engine.cgroup_version}")


def judge_memlock(engine: EngineFacts) -> Finding:
    """NCCL and GPUDirect pin memory; a daemon that may not raise the limit passes its own on."""
    check = "engine.memlock"
    if not engine.is_local:
        return ok(check, "the engine is on another host and sets the limits there")
    ceiling = engine.ceilings.get("memlock")
    if ceiling is not None and ceiling < _SMALL_MEMLOCK_BYTES:
        return warning(
            check,
            f"the daemon cannot give more than {ceiling // 1024} KiB of locked memory: NCCL and RDMA need it",
            "LimitMEMLOCK=infinity in docker.service, then restart it",
        )
    return ok(check, "environments may lock as much memory as they have")


def judge_live_restore(engine: EngineFacts) -> Finding:
    """Without live-restore an update of Docker ends every environment."""
    check = "engine.live-restore"
    if engine.has_live_restore:
        return ok(check, "environments live on while the daemon restarts")
    return warning(check, "a restart of the daemon ends every environment", 'set {"live-restore": true} in daemon.json')


def judge_user_namespaces(engine: EngineFacts) -> Finding:
    """Remapped users do not own the directories that the gateway mounts for them."""
    check = "engine.users"
    if engine.remaps_users:
        return failure(
            check,
            "user namespace remapping is on: mounted directories do not belong to the user inside",
            "remove userns-remap from daemon.json",
        )
    if engine.is_rootless and not engine.keeps_user:
        return failure(
            check,
            f"{engine.product} runs without root and keeps no user's id: it is given no environments",
            f"{KEEP_THEM}, or run it with root",
        )
    if engine.is_rootless:
        return ok(check, f"{engine.product} runs without root: environments belong to its own user, inside and outside")
    return ok(check, "users have the same ids inside and outside")


def judge_image_contract(image: ImageFacts | Unasked, wish: Wish) -> Finding:
    """An image without devgw's environment package has no sshd that the gateway could reach."""

    def judge(found: ImageFacts) -> Finding:
        if found.is_elsewhere:
            return ok("image.contract", f"nodes fetch {found.reference}; 'devgw doctor HANDLE' looks inside")
        if "devgw-environment" not in found.labels:
            return failure(
                "image.contract",
                f"{found.reference} was not built by devgw: it has no sshd on a Unix socket",
                f"'devgw image build --base {found.reference}', or keep docs/reference/environment-contract.md",
            )
        version = found.labels["devgw-environment"]
        return ok("image.contract", f"{found.reference} has sshd and notebook of devgw-environment {version}")

    return judged("image.contract", image, judge, f"'devgw image build' makes {wish.image}, once an engine answers")
