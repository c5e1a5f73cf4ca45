"""Runs one script of an image build beside the host's read-only files, as whoever builds, with the host's network.

Not a boundary against the script, which is devgw's own: it keeps the build from touching the host and gives it the
paths it will be used at.
"""

import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.engines.bubblewrap.host_files import HostFacts
from gateway.errors import EngineError

_LAST_LINES = 12
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PASSED_ON = ("PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "HOME")
_LAID_OUT_ANEW = frozenset({"opt", "own", "build", "tmp", "proc", "dev"})


def run_script(
    bwrap: str,
    script: str,
    places: Mapping[str, Path],
    facts: HostFacts,
    arguments: Mapping[str, str],
    show: Callable[[str], None],
) -> None:
    """Run /build/`script` with writable `places`, by their target. Raises: EngineError `image.build-failed`."""
    process = subprocess.Popen(
        [bwrap, *_options(places, facts), "--", "/usr/bin/sh", f"/build/{script}"],
        env=_variables(arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        umask=0o022,
    )
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with process:
        for line in process.stdout or ():
            last.append(line.rstrip())
            show(line.rstrip())
    if process.returncode != 0:
        tail = "".join(f"\n  {line}" for line in last)
        raise EngineError("image.build-failed", f"{script} failed with {process.returncode}{tail}")


def _options(places: Mapping[str, Path], facts: HostFacts) -> list[str]:
    options = ["--unshare-pid", "--unshare-ipc", "--die-with-parent", "--new-session", "--chdir", "/"]
    for entry in sorted(Path("/").iterdir()):
        if entry.name in _LAID_OUT_ANEW:
            continue
        if entry.is_symlink():
            options += ["--symlink", str(entry.readlink()), str(entry)]
        else:
            options += ["--ro-bind", str(entry), str(entry)]
    for entry in sorted(Path("/opt").glob("*")):  # wheels and indexes of a site may lie there
        if entry.name != "devgw":
            options += ["--ro-bind-try", str(entry), str(entry)]
    options += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 a path inside
    for path in facts.hidden:
        options += ["--tmpfs", str(path)]
    for target, source in places.items():
        options += ["--bind", str(source), target]
    return options


def _variables(arguments: Mapping[str, str]) -> dict[str, str]:
    """Return the build's arguments, and what pip needs to know of this site."""
    passed = {name: value for name, value in os.environ.items() if name.upper().startswith(_PASSED_ON)}
    return {**passed, **arguments, "PATH": _PATH, "LANG": "C.UTF-8"}
