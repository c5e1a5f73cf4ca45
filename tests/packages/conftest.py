"""The package and the wheel of this checkout, each built once for all tests of packages."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package of this checkout; DEVGW_TEST_DEB names one that is made already."""
    if made := os.environ.get("DEVGW_TEST_DEB"):
        return Path(made)
    return Path(_build("deb", tmp_path_factory.mktemp("deb"))[0])


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the wheel of this checkout and its constraints."""
    made, constraints = map(Path, _build("wheel", tmp_path_factory.mktemp("wheel")))
    return made, constraints


def _build(kind: str, into: Path) -> list[str]:
    command = [ROOT / "deploy" / kind / "build", into]
    built = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert built.returncode == 0, built.stderr
    return built.stdout.splitlines()
