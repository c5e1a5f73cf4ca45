"""What the gateway's image is built from."""

import importlib.util
import io
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
_PLACE = ROOT / "containers/gateway/context.py"
_LOCK = """\
alpha==1.0 \\
    --hash=sha256:aa
    # via devgw (pyproject.toml)
beta==2.0 \\
    --hash=sha256:bb
    # via
    #   alpha
    #   stranger
gamma-x==3.0 \\
    --hash=sha256:cc
    # via beta
stranger==4.0 \\
    --hash=sha256:dd
    # via devgw (pyproject.toml)
"""


@pytest.fixture(scope="module")
def context() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gateway_context", _PLACE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_of_the_lock_it_has_what_is_asked_for_with_all_that_hangs_on_it(context: ModuleType) -> None:
    lock = context.read_lock(_LOCK)
    part = context.part_of_lock(lock, {"alpha"})
    assert part == _LOCK.partition("stranger==4.0")[0]


def test_a_package_that_is_not_locked_is_said(context: ModuleType) -> None:
    with pytest.raises(SystemExit, match="has no delta"):
        context.part_of_lock(context.read_lock(_LOCK), {"alpha", "delta"})


def test_the_image_has_the_servers_packages_and_no_tool_of_the_developers(context: ModuleType) -> None:
    locks = context.locks()
    run = context.read_lock(locks["run.lock"])
    assert {"asyncssh", "kubernetes-asyncio", "aiohttp", "psycopg", "psycopg-binary", "uvicorn"} <= run.keys()
    assert not {"pytest", "ruff", "mypy", "jupyterlab", "numpy", "setuptools"} & run.keys()
    assert all("--hash=sha256:" in entry for entry in run.values())
    assert "setuptools" in context.read_lock(locks["build.lock"])


def test_constraints_are_the_locks_versions_without_hashes(context: ModuleType, tmp_path: Path) -> None:
    """Pip, pipx and uv take them; every line of the lock has its own there."""
    assert context.constraints(_LOCK).splitlines() == ["alpha==1.0", "beta==2.0", "gamma-x==3.0", "stranger==4.0"]
    command = [sys.executable, str(_PLACE), "--locks", str(tmp_path), "--extras", "timestamps"]
    subprocess.run(command, check=True, timeout=60)
    written = (tmp_path / "constraints.txt").read_text().splitlines()
    named = {Requirement(line).name: Requirement(line) for line in written}
    assert named.keys() == context.read_lock((tmp_path / "run.lock").read_text()).keys()
    assert {"asyncssh", "rfc3161-client"} <= named.keys()
    assert "kubernetes-asyncio" not in named
    assert all(len(one.specifier) == 1 and str(one.specifier).startswith("==") for one in named.values())


def test_nothing_that_the_packages_need_is_missing(context: ModuleType) -> None:
    """By what each package itself says: the lock's "via" is only as good as whoever wrote it."""
    run = context.read_lock(context.locks()["run.lock"])
    needed = [Requirement(text) for name in run for text in metadata.requires(name) or []]
    wanted = {context.name_of(one.name) for one in needed if not one.marker or one.marker.evaluate({"extra": ""})}
    assert wanted - run.keys() == set()


def test_the_context_holds_the_wheels_sources_alone(context: ModuleType, tmp_path: Path) -> None:
    wheel, bundle = tmp_path / "alpha-1.0-py3-none-any.whl", tmp_path / "site.pem"
    wheel.write_bytes(b"wheel")
    bundle.write_text("-----BEGIN CERTIFICATE-----\n")
    target = io.BytesIO()
    context.write(target, tmp_path, bundle)
    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        modes = {entry.name: entry.mode for entry in tar.getmembers()}
    wanted = {
        "Dockerfile",
        "build/install_own.sh",
        "locks/run.lock",
        "source/pyproject.toml",
        "source/gateway/images/build.py",
        "source/containers/image/build/install_system.sh",
        "wheelhouse/alpha-1.0-py3-none-any.whl",
        "trust/ca-bundle.pem",
    }
    assert wanted <= modes.keys()
    unwanted = ("/.git/", "/tests/", "__pycache__", ".venv", "source/docs")
    assert not [name for name in modes if any(part in name for part in unwanted)]
    executable = "source/containers/image/build/install_system.sh"  # permissions name an environment's image
    here = (ROOT / executable.removeprefix("source/")).stat().st_mode
    assert modes[executable] & 0o100 == here & 0o100
