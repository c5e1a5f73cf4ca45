"""What `pip install` puts in place: an installed gateway builds the same image as a checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from gateway.images.build import find_image_folder
from gateway.images.context import collect_context, digest_context

ROOT = Path(__file__).parents[2]
CACHES = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info")
PARTS = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "gateway", "policies", "containers")


def test_the_wheel_carries_the_sources_of_the_image(tmp_path: Path) -> None:
    """The digest over names, permissions and contents names the image: it is that of the checkout."""
    source, wheels, unpacked = (tmp_path / name for name in ("source", "wheels", "unpacked"))
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=CACHES)
        else:
            shutil.copy(ROOT / part, source / part)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels), "."]
    subprocess.run(command, cwd=source, check=True, timeout=300)
    (wheel,) = wheels.glob("devgw-*.whl")
    shutil.unpack_archive(wheel, unpacked, "zip")
    with zipfile.ZipFile(wheel) as archive:  # which forgets permissions, as pip does not
        for entry in archive.infolist():
            (unpacked / entry.filename).chmod(entry.external_attr >> 16)
    found = find_image_folder([unpacked / "gateway" / "containers"])
    assert not list(found.parent.rglob("test_*.py"))
    here = find_image_folder()
    there = collect_context(found, runner_folder=found.parent / "runner")
    assert digest_context(there, {}) == digest_context(collect_context(here, runner_folder=here.parent / "runner"), {})
