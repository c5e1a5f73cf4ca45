"""The small files of a prepared root, and what of the host is seen beside them: /usr and what belongs to it."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import EngineError

PYTHON = Path("/usr/bin/python3")
SEARCH_PATH = "/opt/devgw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TOP_LEVEL = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # links into /usr, or directories on an older host
_SEEN = (  # read by programs in /usr, the same for every user, and kept up to date by the host's package manager
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/pki/tls/certs", "/etc/services"),
    *("/etc/protocols", "/etc/mime.types", "/etc/debian_version", "/etc/vim", "/etc/nanorc", "/etc/inputrc"),
    "/etc/fonts",
    *("/sys/devices/system/cpu", "/sys/devices/system/node"),  # how many processors: torch and numpy ask
)
_EMPTY = ("home", "tmp", "run", "datasets", "workspace", "checkpoints", "logs", "opt", "mnt", "proc", "dev", "var/log")
_TEXTS = {
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "etc/passwd": "root:x:0:0:no login:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\n",
    "etc/resolv.conf": "# no egress: there is nobody to ask\n",
    "etc/profile": (
        'PATH=/usr/local/bin:/usr/bin:/bin\nexport PATH\nPS1="\\\\u@\\\\h:\\\\w\\\\$ "\n'
        'for file in /etc/profile.d/*.sh; do [ -r "$file" ] && . "$file"; done\nunset file\n'
    ),
}


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What of this host a prepared root leans on. `python` is where the link /usr/bin/python3 leads."""

    python: Path
    site_directories: tuple[Path, ...]

    @property
    def hidden(self) -> tuple[Path, ...]:
        """Directories below /usr that are the host administrator's own business."""
        return tuple(path for path in (Path("/usr/local"), *self.site_directories) if path.is_dir())


def find_host_facts() -> HostFacts:
    """Look at the host. Raises: EngineError `image.host-lacks`, naming the packages to install."""
    needed = {"/usr/bin/python3": "python3", "/usr/sbin/sshd": "openssh-server", "/usr/bin/bash": "bash"}
    missing = [package for path, package in needed.items() if not Path(path).exists()]
    if not missing and _asked("import ensurepip, venv") is None:
        missing = ["python3-venv"]
    if missing:
        raise EngineError(
            "image.host-lacks",
            f"environments on this engine use the host's own programs, and it lacks {', '.join(missing)}",
            f"as root: apt-get install {' '.join(missing)}",
        )
    sites = _asked("import site; print(*site.getsitepackages(), sep='\\n')") or ""
    directories = (Path(line) for line in sites.splitlines())
    return HostFacts(PYTHON.resolve(), tuple(path for path in directories if not path.is_relative_to("/usr/local")))


def may_lend(path: str) -> bool:
    """Say whether a file or directory of the host may be seen in environments, as `lay_out_tree` lends them."""
    return path == "/usr" or path in _SEEN or path.removeprefix("/") in _TOP_LEVEL


def lay_out_tree(tree: Path, rootfs: Path) -> list[tuple[str, str]]:
    """Write the small files into `tree`, those of `rootfs` last; return (source, target) of what the host lends."""
    for name in _EMPTY:
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name, text in _TEXTS.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "var" / "tmp").symlink_to("../tmp")
    (tree / "etc" / "os-release").symlink_to("../usr/lib/os-release")
    if Path("/etc/skel").is_dir():
        shutil.copytree("/etc/skel", tree / "etc" / "skel")
    if rootfs.is_dir():
        shutil.copytree(rootfs, tree, dirs_exist_ok=True)
    lent = [("/usr", "/usr"), *((path, path) for path in _SEEN if Path(path).exists())]
    for name in _TOP_LEVEL:
        place = Path("/") / name
        if place.is_symlink():
            (tree / name).symlink_to(place.readlink())
        elif place.is_dir():
            lent.append((str(place), str(place)))
    return lent


def _asked(question: str) -> str | None:
    """Run a line of the host's Python; None when that fails."""
    done = subprocess.run([PYTHON, "-I", "-c", question], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None
