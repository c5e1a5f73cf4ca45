"""What is sent to an engine to build an environment image: the files, in one order, and a digest of them.

The digest names the image, so that the same inputs are never built twice. Nothing here speaks to an engine.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LEFT_OUT = frozenset(
    {"__pycache__", ".git", ".venv", ".ruff_cache", ".mypy_cache", ".pytest_cache", "build", "dist", "tests"}
)
CONTEXT_FOLDERS = ("build", "trust", "profiles", "environment", "rootfs")
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class ContextFile:
    """One file of a build context: where it comes from and its name in the context."""

    name: str
    source: Path
    decides: bool = True
    """Whether the file decides what the image is; a CA bundle used only while building does not."""

    @property
    def mode(self) -> int:
        """Permissions in the context: those of the owner only tell programs from data."""
        return 0o755 if self.source.stat().st_mode & 0o100 else 0o644


def list_files(folder: Path, prefix: str) -> Iterator[ContextFile]:
    """Every file below a folder, sorted, without caches and tests (links to files count as files)."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        is_left_out = any(part in LEFT_OUT or part.endswith(".egg-info") for part in inside.parts)
        if path.is_file() and not is_left_out:
            yield ContextFile(f"{prefix}/{inside.as_posix()}", path)


def collect_context(
    image_folder: Path,
    *,
    runner_folder: Path | None = None,
    wheelhouse: Path | None = None,
    ca_bundle: Path | None = None,
    keep_ca_bundle: bool = False,
) -> list[ContextFile]:
    """The files of a build: the image's folder, and what the administrator adds to it."""
    files = [ContextFile("Dockerfile", image_folder / "Dockerfile")]
    for name in CONTEXT_FOLDERS:
        files.extend(list_files(image_folder / name, name))
    files.append(ContextFile("wheelhouse/README", image_folder / "wheelhouse" / "README"))
    files.append(ContextFile("runner/README", image_folder / "runner" / "README"))
    if wheelhouse is not None:
        files.extend(ContextFile(f"wheelhouse/{wheel.name}", wheel) for wheel in sorted(wheelhouse.glob("*.whl")))
    if runner_folder is not None and (runner_folder / "pyproject.toml").is_file():
        files = [file for file in files if file.name != "runner/README"]
        files.extend(list_files(runner_folder, "runner"))
    if ca_bundle is not None:
        files = [file for file in files if file.name != "trust/ca-bundle.pem"]
        files.append(ContextFile("trust/ca-bundle.pem", ca_bundle, decides=keep_ca_bundle))
    return files


def digest_context(files: list[ContextFile], arguments: Mapping[str, str]) -> str:
    """SHA-256 (hex) over names, permissions and contents of the deciding files, and over the build arguments."""
    digest = hashlib.sha256()
    for file in sorted((file for file in files if file.decides), key=lambda file: file.name):
        with file.source.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{file.name}\0{file.mode:o}\0{content}\0".encode())
    for name, value in sorted(arguments.items()):
        digest.update(f"{name}={value}\0".encode())
    return digest.hexdigest()


def write_tar(files: list[ContextFile], target: IO[bytes]) -> None:
    """Write the context as a tar ball whose bytes depend on the contents alone, so that the builder's cache holds."""
    with tarfile.open(fileobj=target, mode="w", bufsize=READ_BYTES) as tar:
        for file in files:
            entry = tarfile.TarInfo(file.name)
            entry.size = file.source.stat().st_size
            entry.mode = file.mode
            with file.source.open("rb") as opened:
                tar.addfile(entry, opened)


def tar_of_text(name: str, text: str) -> IO[bytes]:
    """A tar ball in memory with one small file."""
    target = io.BytesIO()
    content = text.encode()
    with tarfile.open(fileobj=target, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    target.seek(0)
    return target
