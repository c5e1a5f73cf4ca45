#!/usr/bin/env python3
"""Write the build context of the gateway's image to standard output, as a tar ball for `docker build -`.

    python containers/gateway/context.py | docker build -t devgw/gateway -
    python containers/gateway/context.py --wheelhouse wheels --ca-bundle site.pem | docker build -t devgw/gateway -

It holds the sources that the wheel is made of and no other file of the checkout. `--locks DIRECTORY` writes what is to
be in a wheelhouse: `pip download --require-hashes --no-deps -d wheels -r DIRECTORY/run.lock -r DIRECTORY/build.lock`.
Beside them lies `constraints.txt`: the versions of run.lock alone, which pip, pipx and uv take as constraints.
"""

import argparse
import io
import re
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[2]
EXTRAS = ("kubernetes", "postgresql")
"""Extras of devgw that the image has: the cluster's engine and the database of several gateways."""
SOURCES = (
    "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "gateway", "policies",
    "containers/wheel.py", "containers/image", "containers/runner",
)  # fmt: skip
_LEFT_OUT = {"__pycache__", ".venv", "tests", "build", "dist"}
_OF_THE_IMAGE = Path("containers/image/build")
_OURS = "devgw (pyproject.toml)"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def name_of(requirement: str) -> str:
    """Return the normalised name of a requirement such as `psycopg[binary]>=3.2`."""
    found = _NAME.match(requirement.strip())
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def read_lock(text: str) -> dict[str, str]:
    """Return each package's lines of a lock file by its name."""
    entries: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if line.strip() and not line[0].isspace() and not line.startswith("#"):
            name = name_of(line)
        if name:
            entries.setdefault(name, []).append(line)
    return {name: "".join(lines) for name, lines in entries.items()}


def wanted_by(entry: str) -> set[str]:
    """Return who asked for a package, as its `# via` says."""
    comments = [line.strip(" #\n") for line in entry.splitlines() if line.lstrip().startswith("#")]
    words = [comment.removeprefix("via").strip() for comment in comments]
    return {word if word == _OURS else name_of(word) for word in words if word}


def part_of_lock(lock: dict[str, str], roots: set[str]) -> str:
    """Return the lock's lines of these packages and of all that they ask for. Raises: SystemExit, one is not locked."""
    if missing := sorted(roots - lock.keys()):
        sys.exit(f"context: error: requirements.lock has no {', '.join(missing)}")
    taken = set(roots)
    while more := {name for name, entry in lock.items() if name not in taken and wanted_by(entry) & taken}:
        taken |= more
    return "".join(lock[name] for name in sorted(taken))


def constraints(lock: str) -> str:
    """Return the versions of a lock alone: with hashes, pip would ask for those of the wheel itself too."""
    return "".join(f"{entry.split()[0]}\n" for entry in read_lock(lock).values())


def locks(wanted: tuple[str, ...] = EXTRAS) -> dict[str, str]:
    """Return what is installed to run, with these extras, and what builds the wheel."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    asked = [*project["project"]["dependencies"], *(one for name in wanted for one in extras.get(name, []))]
    lock = read_lock((CHECKOUT / "requirements.lock").read_text())
    return {
        "run.lock": part_of_lock(lock, {name_of(one) for one in asked}),
        "build.lock": part_of_lock(
            lock, {name_of(one) for one in project["build-system"]["requires"]} | {"wheel"} & lock.keys()
        ),
    }


def source_files() -> Iterator[tuple[str, Path]]:
    """Every file that the wheel is made of, with its name in the context."""
    for source in SOURCES:
        place = CHECKOUT / source
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            inside = path.relative_to(CHECKOUT)
            parts = inside.relative_to(_OF_THE_IMAGE).parts if inside.is_relative_to(_OF_THE_IMAGE) else inside.parts
            if path.is_file() and not any(part in _LEFT_OUT or part.endswith(".egg-info") for part in parts):
                yield f"source/{inside.as_posix()}", path


def write(target: IO[bytes], wheelhouse: Path | None, ca_bundle: Path | None) -> None:
    """Write the context."""
    here = Path(__file__).parent
    files = [
        ("Dockerfile", here / "Dockerfile"),
        *((f"build/{one.name}", one) for one in sorted((here / "build").iterdir())),
    ]
    files += source_files()
    if wheelhouse:
        files += [(f"wheelhouse/{wheel.name}", wheel) for wheel in sorted(wheelhouse.glob("*.whl"))]
    if ca_bundle:
        files.append(("trust/ca-bundle.pem", ca_bundle))
    texts = {f"locks/{name}": text for name, text in locks().items()}
    texts |= {"wheelhouse/README": "Wheels to install from.\n", "trust/README": "A CA bundle to build with.\n"}
    with tarfile.open(fileobj=target, mode="w|") as tar:
        for name, path in files:
            _add(tar, name, path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)
        for name, text in texts.items():
            _add(tar, name, text.encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(content))


def main() -> int:
    """Read the command line and write what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheelhouse", type=Path, help="directory of wheels to install from, instead of an index")
    parser.add_argument(
        "--ca-bundle", type=Path, help="PEM file to trust while building; it does not stay in the image"
    )
    parser.add_argument("--locks", type=Path, help="write the lock files there and nothing else")
    parser.add_argument("--extras", nargs="*", default=EXTRAS, help="devgw's extras in those lock files")
    given = parser.parse_args()
    if given.locks:
        given.locks.mkdir(parents=True, exist_ok=True)
        texts = locks(tuple(given.extras))
        for name, text in (texts | {"constraints.txt": constraints(texts["run.lock"])}).items():
            (given.locks / name).write_text(text)
        return 0
    if given.wheelhouse and not any(given.wheelhouse.glob("*.whl")):
        sys.exit(f"context: error: no wheels in {given.wheelhouse}")
    if given.ca_bundle and "BEGIN CERTIFICATE" not in given.ca_bundle.read_text(errors="replace"):
        sys.exit(f"context: error: no certificate in {given.ca_bundle}")
    if sys.stdout.isatty():
        sys.exit("context: error: that is a tar ball: pipe it into 'docker build -t devgw/gateway -'")
    write(sys.stdout.buffer, given.wheelhouse, given.ca_bundle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
