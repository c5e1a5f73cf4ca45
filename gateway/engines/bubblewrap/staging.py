"""Lays everything a sandbox mounts out where an unprivileged bwrap can reach it, in a mount namespace of our own.

Volumes lie below directories that only the gateway may enter, and bwrap runs as the environment's user; so the
supervisor binds each source into a file system in memory first. As an ordinary user it does so in a user namespace.
Also here: temporary file systems, because bwrap cannot mount one without the right to execute.
"""

import ctypes
import os
from pathlib import Path

from gateway.engines.bubblewrap.sandbox import Sandbox, Temporary

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_REC, _MS_SLAVE = 4096, 16384, 1 << 19
_MNT_DETACH = 2
_STAGE = "/tmp"  # noqa: S108 covered by a file system of our own; every Linux has it
_STAGE_BYTES = 16 * 2**20

_libc = ctypes.CDLL(None, use_errno=True)


def enter_own_mounts() -> None:
    """Leave the host's mount namespace; without root by way of a user namespace. Raises: OSError."""
    if os.geteuid() == 0:
        _unshare(_CLONE_NEWNS)
    else:
        uid, gid = os.getuid(), os.getgid()
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _mount("none", "/", "", _MS_REC | _MS_SLAVE)


def stage(sandbox: Sandbox) -> dict[str, str]:
    """Bind every source, mount every temporary file system; return where each target's source lies now.

    Raises:
        OSError: naming the source.
    """
    _leave_other_disks({Path(bind.source) for bind in sandbox.binds})
    descriptors = {bind.target: os.open(bind.source, os.O_PATH | os.O_CLOEXEC) for bind in sandbox.binds}
    _mount("tmpfs", _STAGE, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode=0755,size={_STAGE_BYTES}")
    staged: dict[str, str] = {}
    for target, descriptor in descriptors.items():
        staged[target] = _place(len(staged), is_directory=os.path.isdir(f"/proc/self/fd/{descriptor}"))  # noqa: PTH112 a magic link, which Path would read as text
        _mount(f"/proc/self/fd/{descriptor}", staged[target], "", _MS_BIND | _MS_REC)
        os.close(descriptor)
    for temporary in sandbox.temporaries:
        staged[temporary.target] = _place(len(staged), is_directory=True)
        _mount_temporary(temporary, staged[temporary.target], sandbox)
    return staged


def _leave_other_disks(sources: set[Path]) -> None:
    """Let go of file systems beside those of the sources: a copy here would keep another environment's disk open.

    Where the host's mounts are shared, their ends come here by themselves; in many containers they are private.
    """
    needed = {above for source in sources for above in (source, *source.parents)}
    beside = {source.parents[2] for source in sources if source.name == "workspace" and len(source.parents) > 3}
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        place = Path(line.split(" ")[4])
        if place not in needed and len(place.parents) > 2 and place.parents[1] in beside:
            _libc.umount2(os.fsencode(place), _MNT_DETACH)


def _mount_temporary(temporary: Temporary, place: str, sandbox: Sandbox) -> None:
    flags = _MS_NOSUID | _MS_NODEV | (0 if temporary.may_execute else _MS_NOEXEC)
    owner = f"uid={sandbox.uid},gid={sandbox.gid}"
    _mount("tmpfs", place, "tmpfs", flags, f"mode={temporary.mode:o},size={temporary.size_bytes},{owner}")


def _place(number: int, *, is_directory: bool) -> str:
    path = Path(_STAGE) / str(number)
    if is_directory:
        path.mkdir(mode=0o755)
    else:
        path.touch(mode=0o644)
    return str(path)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), f"unshare(2): {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    flag_argument = ctypes.c_ulong(flags)
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flag_argument, options.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot mount {source} at {target}: {os.strerror(code)}")
