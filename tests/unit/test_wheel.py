"""What `pip install` puts in place: an installed gateway has all its files, and builds the same image as a checkout."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from gateway.images.build import find_image_folder
from gateway.images.context import collect_context, digest_context

ROOT = Path(__file__).parents[2]
CACHES = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info")
PARTS = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "gateway", "policies", "containers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this checkout, built from a copy of what it is made of."""
    source, wheels = (tmp_path_factory.mktemp(name) for name in ("source", "wheels"))
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=CACHES)
        else:
            shutil.copy(ROOT / part, source / part)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels), "."]
    subprocess.run(command, cwd=source, check=True, timeout=300)
    return next(wheels.glob("devgw-*.whl"))


def test_the_wheel_carries_the_sources_of_the_image(wheel: Path, tmp_path: Path) -> None:
    """The digest over names, permissions and contents names the image: it is that of the checkout."""
    unpacked = tmp_path / "unpacked"
    shutil.unpack_archive(wheel, unpacked, "zip")
    with zipfile.ZipFile(wheel) as archive:  # which forgets permissions, as pip does not
        for entry in archive.infolist():
            (unpacked / entry.filename).chmod(entry.external_attr >> 16)
    found = find_image_folder([unpacked / "gateway" / "containers"])
    assert not list(found.parent.rglob("test_*.py"))
    here = find_image_folder()
    there = collect_context(found, runner_folder=found.parent / "runner")
    assert digest_context(there, {}) == digest_context(collect_context(here, runner_folder=here.parent / "runner"), {})


def test_every_file_of_the_packages_is_in_the_wheel_and_no_other(wheel: Path) -> None:
    """Migrations, the unit, the page's templates and what it serves, policies and their examples among them."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("gateway", "policies")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len([name for name in sources if not name.endswith(".py")]) > 40
    assert sources - names == set()
    assert {name for name in names - sources if not name.startswith("gateway/containers/")} == set()


def test_the_wheel_names_the_extras_of_a_gateway(wheel: Path) -> None:
    """`devgw[postgresql]` is asked of what is installed, not of a checkout."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {f"Provides-Extra: {name}" for name in asked} <= set(metadata.splitlines())
