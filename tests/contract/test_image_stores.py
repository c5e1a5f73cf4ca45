"""The images of both engines: brought in an archive, listed by digest, read without being run, removed when unused."""

import io
import json
import os
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import docker
import pytest

from gateway.engines.bubblewrap.image_store import RootStore
from gateway.engines.bubblewrap.software import PreparedRoots
from gateway.engines.docker.image_store import DockerImageStore
from gateway.engines.image_store import ImageStore
from gateway.engines.interface import ignore_progress
from gateway.errors import ConflictError, EngineError, NotFoundError
from gateway.images.contents import is_wanted, read_contents
from tests.contract.bubblewrap_subject import bubblewrap_under_test
from tests.contract.docker_subject import docker_under_test
from tests.contract.subject import EngineUnderTest, started

pytestmark = pytest.mark.engine
_STATUS = b"Package: hello\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"


@dataclass(frozen=True)
class Stored:
    """An engine, its images, and what makes an archive of a new image that runs and has the package `hello`."""

    engine: EngineUnderTest
    store: ImageStore
    archive: Callable[[], IO[bytes]]


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "bubblewrap"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stored]:
    """Return each engine in turn."""
    if request.param == "docker":
        with docker_under_test(tmp_path) as engine:
            api = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")
            store = DockerImageStore(os.environ["DOCKER_HOST"])
            before = {one.digest for one in store.all()}
            yield Stored(engine, store, lambda: _docker_archive(api, engine.image))
            for observed in engine.engine.observe_all():
                engine.engine.delete(observed.ref)
            for one in store.all():
                if one.digest not in before and _is_ours(one.labels):
                    store.remove(one.digest)
    else:
        with bubblewrap_under_test(tmp_path) as engine:
            roots = PreparedRoots(tmp_path / "images")
            yield Stored(engine, RootStore(roots), lambda: _root_archive(roots, tmp_path))


def _is_ours(labels: dict[str, str]) -> bool:
    return labels.get("org.devgw.trial") == str(os.getpid())


def test_an_archive_becomes_an_image_that_runs_and_goes_when_nothing_has_it(stored: Stored) -> None:
    """By digest: environments start from it, it has the names it is given, and in use it stays."""
    image = stored.store.load(stored.archive(), ignore_progress)
    stored.store.name(image.digest, f"devgw/trial:{image.digest[7:19]}")
    found = next(one for one in stored.store.all() if one.digest == image.digest)
    assert f"devgw/trial:{image.digest[7:19]}" in found.names
    assert found.labels["org.devgw.contract"] == "probe"
    assert found.size_bytes > 0
    spec = stored.engine.spec(image=image.digest)
    started(stored.engine, image=image.digest)
    with pytest.raises(ConflictError) as refusal:
        stored.store.remove(image.digest)
    assert refusal.value.code == "image.in-use"
    assert image.digest in {one.digest for one in stored.store.all()}
    stored.engine.engine.delete(spec.ref)
    stored.store.remove(image.digest)
    assert image.digest not in {one.digest for one in stored.store.all()}
    with pytest.raises(NotFoundError):
        stored.engine.engine.image(image.digest)
    with pytest.raises(NotFoundError):
        stored.store.remove(image.digest)


def test_the_packages_of_an_image_are_read_without_running_it(stored: Stored) -> None:
    """A prepared root has its own files, and the packages of the host that lends it /usr."""
    image = stored.store.load(stored.archive(), ignore_progress)
    contents = read_contents(stored.store.package_files(image.digest, is_wanted))
    found = {(one.kind, one.name) for one in contents.packages}
    assert ("pypi", "hello-python") in found
    assert ("deb", "hello" if stored.store.is_self_contained else "dpkg") in found
    with pytest.raises(NotFoundError):
        list(stored.store.package_files(f"sha256:{'f' * 64}", is_wanted))


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x1f\x8b cut"])
def test_what_is_no_archive_leaves_nothing(stored: Stored, content: bytes) -> None:
    """One line, and no image more than before."""
    before = {one.digest for one in stored.store.all()}
    with pytest.raises(EngineError) as refusal:
        stored.store.load(io.BytesIO(content), ignore_progress)
    assert (refusal.value.code, "\n" in refusal.value.message) == ("image.import-failed", False)
    assert {one.digest for one in stored.store.all()} == before


def test_an_image_that_no_registry_has_is_not_pulled(stored: Stored) -> None:
    """The name leads to a port on this host where nobody listens."""
    with pytest.raises(EngineError) as refusal:
        stored.store.pull("127.0.0.1:9/none:1", ignore_progress)
    assert refusal.value.code == "image.pull-failed"
    assert "127.0.0.1:9/none" in refusal.value.message


@pytest.mark.parametrize(
    "binds",
    [
        [["/root", "/stolen"]],
        [["/etc/shadow", "/stolen"]],
        [["../../secret", "/stolen"]],
        [["leads-out", "/stolen"]],
        [["tree/../../secret", "/stolen"]],
    ],
)
def test_an_archive_of_a_root_cannot_have_the_hosts_files_shown(tmp_path: Path, binds: list[list[str]]) -> None:
    """Its manifest names what is seen inside: of the host only what every root gets, else only its own."""
    (tmp_path / "made" / "tree").mkdir(parents=True)
    (tmp_path / "made" / "leads-out").symlink_to("/root")
    (tmp_path / "made" / "root.json").write_text(json.dumps({"command": ["/bin/sh"], "binds": binds}))
    store = RootStore(PreparedRoots(tmp_path / "roots"))
    with pytest.raises(EngineError) as refusal:
        store.load(_tar(tmp_path / "made"), ignore_progress)
    assert "no image's to show" in refusal.value.message
    assert store.all() == []
    assert [path for path in (tmp_path / "roots").iterdir() if path.name != ".lock"] == []


def _docker_archive(api: docker.APIClient, image: str) -> IO[bytes]:
    """Build an image of its own content on the suite's, save it, and remove it again."""
    name = f"devgw-contract:trial-{secrets.token_hex(6)}"
    context = io.BytesIO()
    own = secrets.token_hex(8).encode()
    files = {"status": _STATUS, "METADATA": b"Name: hello-python\nVersion: 1\n", "own": own}
    copies = "COPY status /var/lib/dpkg/status\nCOPY METADATA /opt/hello.dist-info/METADATA\nCOPY own /own\n"
    files["Dockerfile"] = f"FROM {image}\nLABEL org.devgw.trial={os.getpid()}\n{copies}".encode()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    for _message in api.build(fileobj=context, custom_context=True, tag=name, rm=True, decode=True):
        pass
    archive = io.BytesIO(b"".join(api.get_image(name)))
    api.remove_image(name)
    return archive


def _root_archive(roots: PreparedRoots, folder: Path) -> IO[bytes]:
    """Copy the suite's root with a package of its own."""
    place = folder / "copied"
    subprocess.run(["cp", "-a", roots.directory / "probe", place], check=True, timeout=60)
    package = place / "tree" / "opt" / "hello.dist-info"
    package.mkdir(parents=True, exist_ok=True)
    (package / "METADATA").write_text(f"Name: hello-python\nVersion: 1\n\n{secrets.token_hex(8)}")
    return _tar(place)


def _tar(folder: Path) -> IO[bytes]:
    done = subprocess.run(["tar", "-C", folder, "-cz", "."], capture_output=True, check=True, timeout=60)
    return io.BytesIO(done.stdout)
