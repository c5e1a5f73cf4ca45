"""Builds and boots the guest: Debian's kernel, this machine's Python with what the checks import, three disks to try.

It runs under software emulation, so it needs neither KVM nor root on this machine, but root to install qemu.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import is_readable, running

ROOT = Path(__file__).resolve().parents[2]
_HERE = Path(__file__).resolve().parent
_LIBRARIES = (
    "sqlalchemy", "alembic", "mako", "markupsafe", "typing_extensions.py", "pydantic", "pydantic_core",
    "annotated_types", "typing_inspection", "pytest", "_pytest", "py.py", "pluggy", "iniconfig", "packaging",
    "pygments",
)  # fmt: skip
_NEEDLESS = ("site-packages", "test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo", "config-*")
_MODULES = ("virtio_pci", "virtio_blk", "xfs", "quota_v2")
_DEPENDS = re.compile(rb"depends=([^\0]*)\0")
_MEBIBYTE = 2**20
_DATA_MEBIBYTES, _COUNTED_MEBIBYTES, _ROOM_MEBIBYTES = 640, 64, 160


class Guest:
    """A guest's files: an initial file system, a root, and the disks that stay from boot to boot."""

    def __init__(self, place: Path) -> None:
        self._place = place
        kernel = Path(_run(_HERE / "guest_kernel").strip())
        self._kernel = next((kernel / "boot").glob("vmlinuz-*"))
        self._make_initial(next((kernel / "lib/modules").iterdir()))
        self._make_root()
        self._make_disks()

    @contextmanager
    def booted(self, *checks: str) -> Iterator["Console"]:
        """Boot it to run files of checks, one after the other; it is cut off where it has not ended with the block."""
        disks = ("root", "ext4", "xfs", "counted")
        drives = [f"if=virtio,format=raw,cache=unsafe,file={self._place / disk}" for disk in disks]
        command = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024",
            "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio",
            "-kernel", str(self._kernel), "-initrd", str(self._place / "initial"),
            "-append", f"console=ttyS0 quiet panic=-1 mitigations=off devgw.checks={','.join(checks)}",
            *(word for drive in drives for word in ("-drive", drive)),
        ]  # fmt: skip
        with running(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            yield Console(process)

    def _make_initial(self, modules: Path) -> None:
        """Write a cpio archive (newc, which the kernel unpacks into memory) of busybox and the modules to load."""
        found = {path.name.partition(".")[0].replace("-", "_"): path for path in modules.rglob("*.ko")}
        order = list(dict.fromkeys(_in_order(_MODULES, found)))
        files = {f"modules/{name}.ko": found[name].read_bytes() for name in order}
        files["modules/order"] = "\n".join(f"{name}.ko" for name in order).encode()
        files["bin/busybox"] = _busybox().read_bytes()
        files["init"] = (_HERE / "initial_program").read_bytes()
        with (self._place / "initial").open("wb") as archive:
            for number, name in enumerate(("modules", "bin", "dev", "root", *files), 1):
                archive.write(_entry(number, name, files.get(name)))
            archive.write(_entry(0, "TRAILER!!!", b""))

    def _make_root(self) -> None:
        """Make an ext4 image of a tree, which needs no mount."""
        tree = self._place / "tree"
        for directory in ("dev", "proc", "sys", "tmp", "data/ext4", "data/xfs", "data/counted", "guest/libraries"):
            (tree / directory).mkdir(parents=True)
        guest, python = tree / "guest", Path(sys.executable).resolve()
        shutil.copy2(_busybox(), guest / "busybox")
        shutil.copy2(_HERE / "first_program", guest / "first_program")
        shutil.copytree(_HERE / "checks", guest / "checks", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("gateway", "policies"):
            shutil.copytree(ROOT / name, guest / "libraries" / name)
        packages = Path(sysconfig.get_path("purelib"))
        for name in (*_LIBRARIES, *(path.name for path in packages.glob("pluggy-*.dist-info"))):
            copy = shutil.copytree if (packages / name).is_dir() else shutil.copy2
            copy(packages / name, guest / "libraries" / name)
        standard = Path(sysconfig.get_path("stdlib"))
        shutil.copytree(standard, _within(tree, standard), ignore=shutil.ignore_patterns(*_NEEDLESS))
        _bring(tree, python)
        for library in sorted({*_shared_libraries(python), *_of_all(tree.rglob("*.so"))}):
            _bring(tree, library)
        (guest / "python").write_text(f"{python}\n")
        used = sum(path.lstat().st_size for path in tree.rglob("*")) // _MEBIBYTE
        self._make_file("root", used + used // 4 + _ROOM_MEBIBYTES)
        _run("mkfs.ext4", "-q", "-F", "-d", tree, self._place / "root")
        shutil.rmtree(tree)

    def _make_disks(self) -> None:
        self._make_file("ext4", _DATA_MEBIBYTES)
        self._make_file("xfs", _DATA_MEBIBYTES)
        self._make_file("counted", _COUNTED_MEBIBYTES)
        for name in ("ext4", "counted"):
            _run("mkfs.ext4", "-q", "-F", "-I", "256", "-O", "quota,project", self._place / name)
        _run("mkfs.xfs", "-q", self._place / "xfs")

    def _make_file(self, name: str, mebibytes: int) -> None:
        with (self._place / name).open("wb") as file:
            file.truncate(mebibytes * _MEBIBYTE)


class Console:
    """What a guest says on its serial line."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.text = ""

    def wait_for(self, words: str, seconds: float) -> None:
        """Read until a guest has said something, and its line is whole. Fails when it ends before, or takes longer."""
        assert self._process.stdout is not None
        descriptor, end = self._process.stdout.fileno(), time.monotonic() + seconds
        while "\n" not in self.text.partition(words)[2]:
            left = end - time.monotonic()
            assert left > 0, f"nothing of {words!r} in {seconds} s:\n{self.text}"
            if not is_readable(descriptor, left):
                continue
            read = os.read(descriptor, 65536)
            self.text += read.decode(errors="replace").replace("\r", "")
            assert read, f"the guest ended without {words!r}:\n{self.text}"


def _in_order(names: Iterable[str], found: dict[str, Path]) -> Iterator[str]:
    """Yield modules after those that they need; what is built in is no file."""
    for name in names:
        if name in found:
            needs = _DEPENDS.search(found[name].read_bytes())
            yield from _in_order(filter(None, needs[1].decode().split(",")) if needs else (), found)
            yield name


def _entry(number: int, name: str, content: bytes | None) -> bytes:
    """Return a file, or with None a directory, as an entry of a cpio archive (newc)."""
    mode = 0o040755 if content is None else 0o100755
    numbers = (number, mode, 0, 0, 1, 0, len(content or b""), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + "".join(f"{value:08x}" for value in numbers).encode() + name.encode() + b"\0"
    return _padded(head) + _padded(content or b"")


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % 4)


def _busybox() -> Path:
    found = shutil.which("busybox")
    assert found is not None, "busybox is missing: tests/setup/install installs it"
    return Path(found).resolve()


def _shared_libraries(program: Path) -> set[Path]:
    said = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=60, check=False).stdout
    return {Path(found) for found in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.MULTILINE)}


def _of_all(programs: Iterable[Path]) -> set[Path]:
    return {library for program in programs for library in _shared_libraries(program)}


def _within(tree: Path, place: Path) -> Path:
    return tree / place.relative_to("/")


def _bring(tree: Path, file: Path) -> None:
    """Copy a file to the place in the tree that it has here."""
    target = _within(tree, file)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(file, target)


def _run(*command: object) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout
