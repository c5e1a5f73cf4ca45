"""Judges the machine: room on its disks, memory, the kernel's ceilings and the clock."""

from collections.abc import Iterator

from gateway.doctor.facts import HostFacts, Space, Wish
from gateway.doctor.finding import Finding, failure, judged, ok, warning

_GIB = 2**30
_FULL_BYTES, _TIGHT_BYTES = _GIB, 10 * _GIB
_FEW_INODES_PERCENT = 5.0
_SMALL_SHM_BYTES = 512 * 2**20
_FEW_WATCHES, _ENOUGH_WATCHES = 65_536, 524_288  # VS Code's documentation asks for 524288
_FEW_INSTANCES = 128  # the kernel's default, counted for each user
_SMALL_PID_MAX = 65_536


def judge_host(host: HostFacts, wish: Wish | None) -> Iterator[Finding]:
    """Judge the machine against what environments are to be; None where they are on other machines."""
    for space in host.spaces:
        yield judge_space(space)
    if wish is not None:
        yield from _judge_room(host, wish)
    yield judged("host.clock", host.clock_is_synchronised, judge_clock, "'timedatectl' tells it")


def _judge_room(host: HostFacts, wish: Wish) -> Iterator[Finding]:
    yield judged("host.memory", host.memory_bytes, lambda found: judge_memory(found, wish), "read /proc/meminfo")
    yield judge_shm(wish)
    yield judged("host.pids", host.pid_max, lambda found: judge_pids(found, wish), "read /proc/sys/kernel/pid_max")
    yield judged(
        "host.inotify-watches", host.inotify_watches, judge_watches, "read /proc/sys/fs/inotify/max_user_watches"
    )
    yield judged(
        "host.inotify-instances",
        host.inotify_instances,
        judge_instances,
        "read /proc/sys/fs/inotify/max_user_instances",
    )


def judge_space(space: Space) -> Finding:
    """Say how much room is left; a full disk stops the journal, and with it the gateway."""
    check, free = f"host.disk.{space.of}", f"{space.free_bytes / _GIB:.1f} GiB free of {space.total_bytes / _GIB:.1f}"
    fix = "'docker system df' and 'du -sh' on volumes show what takes the space"
    if space.free_bytes < _FULL_BYTES:
        return failure(check, f"{space.path} is full: {free}", fix)
    if space.free_inodes_percent < _FEW_INODES_PERCENT:
        return warning(check, f"{space.path} has {space.free_inodes_percent:.0f} % of its inodes left", fix)
    if space.free_bytes < _TIGHT_BYTES:
        return warning(check, f"{space.path} is nearly full: {free}", fix)
    return ok(check, f"{space.path}: {free} GiB")


def judge_memory(memory_bytes: int, wish: Wish) -> Finding:
    """One environment must not be promised more than the machine has."""
    check, has = "host.memory", f"{memory_bytes / _GIB:.1f} GiB"
    if wish.limits.memory_bytes > memory_bytes:
        return warning(
            check,
            f"an environment may use {wish.limits.memory_bytes / _GIB:.1f} GiB, the host has {has}",
            "lower environments.memory",
        )
    return ok(check, f"{has}, of which an environment may use {wish.limits.memory_bytes / _GIB:.1f} GiB")


def judge_shm(wish: Wish) -> Finding:
    """Loader processes pass batches through /dev/shm; too little of it is a bus error."""
    check, shown = "host.shm", f"{wish.limits.shm_bytes / 2**20:.0f} MiB"
    if wish.limits.shm_bytes < _SMALL_SHM_BYTES:
        return warning(
            check,
            f"an environment has {shown} of /dev/shm, too little for loader processes",
            "raise environments.memory",
        )
    return ok(check, f"an environment has {shown} of /dev/shm")


def judge_pids(pid_max: int, wish: Wish) -> Finding:
    """All environments together share the kernel's process numbers."""
    check = "host.pids"
    if pid_max < max(_SMALL_PID_MAX, 4 * wish.limits.pids):
        return warning(
            check,
            f"the kernel has {pid_max} process numbers for all, one environment may use {wish.limits.pids}",
            "'sysctl -w kernel.pid_max=4194304', and keep it in /etc/sysctl.d",
        )
    return ok(check, f"{pid_max} process numbers, at most {wish.limits.pids} for an environment")


def judge_watches(watches: int) -> Finding:
    """Editors watch every file of a project; VS Code says ENOSPC when they are used up."""
    check = "host.inotify-watches"
    if watches < _FEW_WATCHES:
        return warning(
            check,
            f"a user can watch {watches} files: editors and Jupyter need more",
            f"'sysctl -w fs.inotify.max_user_watches={_ENOUGH_WATCHES}', and keep it in /etc/sysctl.d",
        )
    return ok(check, f"a user can watch {watches} files")


def judge_instances(instances: int) -> Finding:
    """Each editor window and each language server takes several."""
    check = "host.inotify-instances"
    if instances < _FEW_INSTANCES:
        return warning(
            check,
            f"a user can have {instances} inotify instances",
            "'sysctl -w fs.inotify.max_user_instances=1024', and keep it in /etc/sysctl.d",
        )
    return ok(check, f"a user can have {instances} inotify instances")


def judge_clock(is_synchronised: bool) -> Finding:
    """Certificates into environments are valid for minutes, and the journal is only as true as its times."""
    check = "host.clock"
    if not is_synchronised:
        return warning(check, "the kernel's clock is not synchronised", "'timedatectl set-ntp true'")
    return ok(check, "the kernel's clock is synchronised")
