"""Docker under the contract: the daemon that DOCKER_HOST names, and an image of busybox that needs no registry."""

import hashlib
import io
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import docker
import pytest

from gateway.engines.docker.engine import DockerEngine
from gateway.engines.docker.injection import is_podman
from gateway.engines.docker.network import ensure_network
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, GpuUuid
from tests.contract.inside import Spool
from tests.contract.subject import EngineUnderTest, probe_script
from tests.support.engine_variables import engine_kind
from tests.support.host_resources import turn

REPOSITORY = "devgw-contract"
_CHANGES = [
    'ENTRYPOINT ["/bin/sh", "/probe.sh"]',
    "ENV PATH=/bin",
    "ENV NVIDIA_VISIBLE_DEVICES=all",
    "LABEL org.devgw.contract=probe",
    "LABEL devgw.user=mallory",
    "STOPSIGNAL SIGKILL",
    "VOLUME /anonymous",
    "EXPOSE 8888",
]


@contextmanager
def docker_under_test(directory: Path) -> Iterator[EngineUnderTest]:
    """Yield the engine as a gateway of its own, and remove whatever a test left there."""
    base_url = os.environ.get("DOCKER_HOST")
    if not base_url:
        pytest.skip("DOCKER_HOST names no engine")
    api = docker.APIClient(base_url=base_url, version="auto")
    image = ensure_image(api)
    is_rootless = "DEVGW_TEST_ROOTLESS_UID" in os.environ
    if is_rootless:  # it follows the path of a mount as its own user
        for folder in (directory, *directory.parents[:-2]):
            folder.chmod(folder.stat().st_mode | 0o011)
    gateway_id = f"test{secrets.token_hex(4)}"
    engine = DockerEngine(base_url, gateway_id, directory=directory / "run-directories")
    gpus = injectable_gpus(api)

    def end(ref: EnvironmentRef, code: int) -> None:
        Spool(directory / f"run.{ref.user}.{ref.name}").quit(code)

    def interrupt_create(spec: EnvironmentSpec) -> None:
        assert ensure_network(api, gateway_id, spec.ref, is_podman=is_podman(api.info()))

    try:
        yield EngineUnderTest(
            "docker",
            engine,
            DockerEngine(base_url, f"other{secrets.token_hex(4)}"),
            image,
            directory,
            interrupt_create,
            end,
            *gpus[:2],
            egress=Egress.NONE if is_rootless else Egress.INTERNET,
        )
    finally:
        for observed in engine.observe_all():
            engine.delete(observed.ref)


def ensure_image(api: docker.APIClient) -> str:
    """Import busybox with the probe under a tag that says its content, unless it is there; return its name."""
    archive = _archive()
    tag = hashlib.sha256(archive + repr(_CHANGES).encode()).hexdigest()[:12]
    with turn("the image of the contract suite"):  # two imports would move the tag under the first one's containers
        if not api.images(f"{REPOSITORY}:{tag}"):
            api.import_image_from_data(archive, repository=REPOSITORY, tag=tag, changes=_CHANGES)
    return f"{REPOSITORY}:{tag}"


@cache
def _archive() -> bytes:
    busybox = shutil.which("busybox")
    assert busybox, "the contract suite's image needs a static busybox: 'apt-get install busybox-static'"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, mode in (("bin", 0o755), ("tmp", 0o1777), ("run", 0o755), ("open", 0o777), ("etc", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add_file(tar, "bin/busybox", Path(busybox).read_bytes())
        _add_file(tar, "probe.sh", probe_script())
        _add_file(tar, "etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return archive.getvalue()


def injectable_gpus(api: docker.APIClient) -> list[GpuUuid]:
    """Return the UUIDs in the engine's CDI specs; the tests' private engine has made-up ones."""
    from gateway.gpus.cdi import CdiInventory

    told = api.info().get("CDISpecDirs") or []
    if engine_kind() == "podman":  # it does not say where it looks
        told = [os.environ["DEVGW_TEST_CDI_DIR"]]
    directories = tuple(Path(path) for path in told)
    return [gpu.uuid for gpu in CdiInventory(directories).read().gpus]


APPLETS = (
    *("sh", "cat", "chmod", "cp", "dd", "df", "echo", "env", "grep", "hostname", "id", "ls", "mkdir", "mv", "nc"),
    *("rm", "seq", "sleep", "tee", "touch", "timeout", "usleep", "wc"),
)


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o755, len(content)
    tar.addfile(entry, io.BytesIO(content))
