"""Tries whether this host lets a plain user make the namespaces of a sandbox, and says what forbids it."""

import os
import subprocess
from pathlib import Path

from gateway.engines.bubblewrap.errors import no_namespaces

_SECONDS = 15
_TRIAL = [
    "--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
    "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
    "--ro-bind-try", "/lib", "/lib", "--ro-bind-try", "/lib64", "/lib64",
    "--proc", "/proc", "--dev", "/dev", "--", "/usr/bin/true",
]  # fmt: skip
_SWITCHES = (  # file, the value that forbids, what to type
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "install an AppArmor profile that lets bwrap use 'userns' (package apparmor-profiles has one)",
    ),
)


def require_namespaces(bwrap: str, ids: tuple[int, int] | None) -> None:
    """Make a sandbox that ends at once. Raises: EngineError `engine.no-namespaces`, with the reason and the fix."""
    try:
        tried = subprocess.run(
            [bwrap, *_TRIAL],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            cwd="/",
            check=False,
            user=ids[0] if ids else None,
            group=ids[1] if ids else None,
            extra_groups=[] if ids else None,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise no_namespaces(f"bwrap cannot be run: {exc}", fix()) from exc
    if tried.returncode != 0:
        raise no_namespaces(tried.stderr.strip() or f"bwrap ended with {tried.returncode}", fix())


def fix(settings: Path = Path("/proc/sys")) -> str:
    """Name the switch that forbids it, as far as one is known."""
    for name, forbids, command in _SWITCHES:
        file = settings / name
        if file.exists() and file.read_text().strip() == forbids:
            return f"as root: {command}"
    if os.path.exists("/.dockerenv"):  # noqa: PTH110 the plainest question
        return "this is a container: start it so that user namespaces and a fresh /proc are allowed, or use Docker"
    return "unprivileged user namespaces must be allowed for bwrap; 'devgw doctor' shows the kernel's settings"
