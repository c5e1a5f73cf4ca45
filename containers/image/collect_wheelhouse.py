#!/usr/bin/env python3
"""Collect the wheels of a profile into a folder, for builds that shall reach no index. Needs pip and Python 3.11 alone.

collect_wheelhouse.py --profile cpu --into wheelhouse/
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PROFILES = Path(__file__).resolve().parent / "profiles"
PLATFORMS = [
    *(f"manylinux_2_{minor}" for minor in range(34, 4, -1)),
    "manylinux2014",
    "manylinux2010",
    "manylinux1",
    "linux",
]


def parse_arguments() -> argparse.Namespace:
    """Read the command line; what is not given comes from the profile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--profile", default="cpu", choices=sorted(path.stem for path in PROFILES.glob("*.toml")))
    parser.add_argument("--into", type=Path, required=True, help="folder for the wheels")
    parser.add_argument("--torch", help="version of torch (default: the profile's)")
    parser.add_argument("--torch-index", help="index for torch; '' means pip's own settings (default: the profile's)")
    parser.add_argument("--machine", choices=["x86_64", "aarch64"], help="default: the profile's, else x86_64")
    return parser.parse_args()


def download(target: list[str], into: Path, *what: str) -> None:
    """Let pip fetch wheels for the image's Python, which need not be the one that runs this."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-qq",
        "--only-binary=:all:",
        "--dest",
        str(into),
        *target,
        *what,
    ]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"collect_wheelhouse: error: pip could not download {' '.join(what)}")


def write_constraints(lock: Path, folder: Path) -> Path:
    """The lock's versions without their hashes, which pip would otherwise ask of torch too."""
    constraints = folder / "constraints.txt"
    pins = re.findall(r"^[A-Za-z0-9._-]+==[^\s\\;]+", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
    return constraints


def list_locks(name: str, profile: dict[str, object]) -> tuple[Path, Path]:
    """The lock of the packages and that of torch, which need not exist."""
    lock, torch_lock = profile.get("lock") or name, profile.get("torch_lock") or name
    return PROFILES / f"{lock}.lock", PROFILES / f"{torch_lock}.torch.lock"


def collect(arguments: argparse.Namespace, profile: dict[str, object]) -> None:
    """Download the lock file with its hashes, then torch: by its own lock, or by version."""
    torch = arguments.torch or profile["torch"]
    index = profile["torch_index"] if arguments.torch_index is None else arguments.torch_index
    lock, torch_lock = list_locks(arguments.profile, profile)
    target = ["--python-version", str(profile["python"]), "--implementation", "cp"]
    for platform in PLATFORMS:
        target += ["--platform", f"{platform}_{arguments.machine}"]
    download([*target, "--no-deps", "--require-hashes"], arguments.into, "-r", str(lock))
    if torch_lock.exists() and f"torch=={torch} " in torch_lock.read_text(encoding="utf-8"):
        download([*target, "--no-deps", "--require-hashes"], arguments.into, "-r", str(torch_lock))
        return
    with tempfile.TemporaryDirectory() as folder:
        from_index = ["--index-url", str(index), "--extra-index-url", "https://pypi.org/simple"] if index else []
        constraints = ["-c", str(write_constraints(lock, Path(folder))), "--find-links", str(arguments.into)]
        download([*target, *from_index, *constraints], arguments.into, f"torch=={torch}", *profile["torch_companions"])


def main() -> None:
    """Collect, unless the folder was filled from the same inputs before."""
    arguments = parse_arguments()
    profile = tomllib.loads((PROFILES / f"{arguments.profile}.toml").read_text(encoding="utf-8"))
    arguments.machine = arguments.machine or profile.get("machine") or "x86_64"
    locks = {path for path in list_locks(arguments.profile, profile) if path.exists()}
    inputs = sorted({*PROFILES.glob(f"{arguments.profile}.*"), *locks})
    asked = f"{arguments.torch} {arguments.torch_index} {arguments.machine}".encode()
    digest = hashlib.sha256(b"".join([asked, *(path.read_bytes() for path in inputs)])).hexdigest()
    marker = arguments.into / ".collected"
    if not (marker.exists() and marker.read_text(encoding="utf-8") == digest):
        arguments.into.mkdir(parents=True, exist_ok=True)
        collect(arguments, profile)
        marker.write_text(digest, encoding="utf-8")
    print(arguments.into)


if __name__ == "__main__":
    main()
