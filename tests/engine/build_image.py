"""Build the CPU image for the tests on the engine under test, through the code that `devgw image build` uses.

Prints the tag; an image that is there already is not built again. Progress goes to standard error.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from gateway.engines.bubblewrap.engine import find_bwrap
from gateway.engines.bubblewrap.image_build import BubblewrapImageBuilder
from gateway.engines.bubblewrap.software import PreparedRoots
from gateway.engines.docker.image_build import DockerImageBuilder
from gateway.engines.image_builder import BuildProgress
from gateway.images.build import BuiltImage, ImageRequest, build_image, find_image_folder, plan_build
from tests.support.engine_variables import engine_kind

HERE = Path(__file__).resolve().parent
CONTAINERS = HERE.parents[1] / "containers"
BASE = "devgw-base:bookworm"


def cache_folder() -> Path:
    """Where the tests keep what is costly to make."""
    return Path(os.environ.get("DEVGW_CACHE") or Path.home() / ".cache" / "devgw")


def collect_wheelhouse() -> Path:
    """The wheels of the CPU profile; torch comes from wherever pip's own settings say."""
    folder = cache_folder() / "wheelhouse-cpu"
    script = CONTAINERS / "image" / "collect_wheelhouse.py"
    command = [
        sys.executable,
        str(script),
        "--profile",
        "cpu",
        "--torch-index",
        os.environ.get("DEVGW_TORCH_INDEX", ""),
    ]
    subprocess.run([*command, "--into", str(folder)], check=True, stdout=subprocess.DEVNULL, timeout=3600)
    return folder


def build_test_image(docker_host: str) -> BuiltImage:
    """Build the image on this engine, base and wheelhouse included, or find it there."""
    subprocess.run(
        [HERE / "base_image"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "DOCKER_HOST": docker_host},
        timeout=3600,
    )
    request = ImageRequest(profile="cpu", base=BASE, wheelhouse=collect_wheelhouse())
    plan = plan_build(request, find_image_folder([CONTAINERS]), CONTAINERS / "runner")
    client = docker.APIClient(base_url=docker_host, version="auto", timeout=1800)
    try:
        return build_image(request, DockerImageBuilder(client), plan, show)
    finally:
        client.close()


def prepare_test_root(roots: Path) -> BuiltImage:
    """Build the image for bubblewrap, wheelhouse included, or find it among these roots."""
    request = ImageRequest(profile="cpu", wheelhouse=collect_wheelhouse())
    plan = plan_build(request, find_image_folder([CONTAINERS]), CONTAINERS / "runner")
    return build_image(request, BubblewrapImageBuilder(PreparedRoots(roots), find_bwrap()[0]), plan, show)


def show(progress: BuildProgress) -> None:
    """Print the steps, and every line when DEVGW_VERBOSE is set."""
    if progress.line.startswith("Step ") or os.environ.get("DEVGW_VERBOSE"):
        print(f"{progress.percent:3d} %  {progress.line}", file=sys.stderr, flush=True)


@contextmanager
def alone() -> Iterator[None]:
    """Build while no other test run does: a second one waits, then finds what the first has made."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("build_image: another test run builds; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    with alone():
        if engine_kind() == "docker":
            print(build_test_image(os.environ["DOCKER_HOST"]).tag)
        else:
            print(prepare_test_root(Path(os.environ["DEVGW_TEST_ROOTS"])).tag)
