"""Kubernetes under the contract: the cluster of `tests/setup/with_cluster`, and an image of busybox and Python.

Every node sees this machine's files, so the directories of a test are shared ones and the spool works as elsewhere;
what goes into a pod by a stream goes by exec all the same.
"""

import hashlib
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes.engine import KubernetesEngine
from gateway.model import EnvironmentRef, EnvironmentSpec, NodeName
from tests.contract.docker_subject import APPLETS
from tests.contract.inside import Spool
from tests.contract.subject import EngineUnderTest, Machines, probe_script

NAMESPACE = "devgw-contract"
_NAME = "docker.io/library/devgw-contract-kubernetes"
_CLUSTER_SECONDS = 120
_PYTHON = Path("/usr/bin/python3.11")
_UNUSED = (
    "test",
    "dist-packages",
    "idlelib",
    "tkinter",
    "ensurepip",
    "lib2to3",
    "turtledemo",
    "__pycache__",
    "config-",
)


@contextmanager
def kubernetes_under_test(directory: Path) -> Iterator[EngineUnderTest]:
    """Yield the engine as a gateway of its own, and remove whatever a test left there."""
    if "KUBECONFIG" not in os.environ:
        pytest.fail("KUBECONFIG names no cluster: begin with tests/setup/with_cluster")
    image = _ensure_namespace_and_image()
    settings = KubernetesSettings(
        namespace=NAMESPACE,
        kubeconfig=os.environ["KUBECONFIG"],
        shared_dirs=(directory, directory.parent),
        image_pull_policy="Never",
        accept_unenforced_network=True,  # the test cluster's network plugin joins nodes and enforces nothing
        schedule_timeout=2,
        start_timeout=90,
    )
    engine = KubernetesEngine(settings, f"test{secrets.token_hex(4)}")
    other = KubernetesEngine(settings, f"other{secrets.token_hex(4)}")

    def end(ref: EnvironmentRef, code: int) -> None:
        Spool(directory / f"run.{ref.user}.{ref.name}").quit(code)

    def interrupt_create(spec: EnvironmentSpec) -> None:
        engine.make_policy(spec.ref, spec.egress)

    def switch(word: str, *, ready: bool) -> Callable[[NodeName], None]:
        def act(node: NodeName) -> None:
            _cluster(word, node)
            _wait(lambda: any(one.name == node and one.is_ready is ready for one in engine.nodes()), f"{node}: {word}")

        return act

    try:
        yield EngineUnderTest(
            "kubernetes",
            engine,
            other,
            image,
            directory,
            interrupt_create,
            end,
            machines=Machines(switch("cut", ready=False), switch("heal", ready=True)),
            has_local_images=False,
            keeps_gpus_while_stopped=False,
        )
    finally:
        for node in engine.nodes():
            if not node.is_ready:
                switch("heal", ready=True)(node.name)
        for observed in engine.observe_all():
            engine.delete(observed.ref)
        engine.close()
        other.close()


@cache
def _ensure_namespace_and_image() -> str:
    """Make the namespace, and import the image into each node; return the image's name."""
    if subprocess.run(
        ["kubectl", "get", "namespace", NAMESPACE], capture_output=True, timeout=60, check=False
    ).returncode:
        subprocess.run(["kubectl", "create", "namespace", NAMESPACE], check=True, timeout=60)
    account = ["kubectl", "-n", NAMESPACE, "get", "serviceaccount", "default"]
    _wait(
        lambda: subprocess.run(account, capture_output=True, timeout=60, check=False).returncode == 0,
        "the namespace has its account",
    )
    layer = _layer()
    tag = f"{_NAME}:{hashlib.sha256(layer).hexdigest()[:12]}"
    archive = Path(os.environ["KUBECONFIG"]).with_name("contract-image.tar")
    archive.write_bytes(_archive(layer, tag))
    _cluster("import", str(archive))
    return tag


def _cluster(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "tests.cluster", *words], check=True, timeout=300)


def _wait(is_reached: Callable[[], bool], state: str) -> None:
    deadline = time.monotonic() + _CLUSTER_SECONDS
    while not is_reached():
        assert time.monotonic() < deadline, f"not reached in {_CLUSTER_SECONDS} s: {state}"
        time.sleep(0.5)


def _archive(layer: bytes, tag: str) -> bytes:
    """Return the image as `docker save` writes it, which containerd imports."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/bin/sh", "/probe.sh"],
            "Env": ["PATH=/bin:/usr/bin", "NVIDIA_VISIBLE_DEVICES=all"],
            "Labels": {"org.devgw.contract": "probe", "devgw.user": "mallory"},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    written = json.dumps(config).encode()
    name = f"{hashlib.sha256(written).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in ((name, written), ("layer.tar", layer), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


@cache
def _layer() -> bytes:
    """Return a root with busybox, the probe, and the distribution's Python with the libraries it loads."""
    busybox = shutil.which("busybox")
    assert busybox, "the contract suite's image needs a static busybox: 'apt-get install busybox-static'"
    assert _PYTHON.exists(), "the contract suite's image needs Debian's Python: 'apt-get install python3'"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, mode in (("bin", 0o755), ("tmp", 0o1777), ("run", 0o755), ("open", 0o777), ("etc", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "bin/busybox", Path(busybox).read_bytes())
        _add(tar, "probe.sh", probe_script())
        _add(tar, "etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        _add(tar, "usr/bin/python3", _PYTHON.read_bytes())
        for library in _libraries():
            _add(tar, library.lstrip("/"), Path(library).read_bytes())
        tar.add("/usr/lib/python3.11", "usr/lib/python3.11", filter=_wanted)
    return layer.getvalue()


def _libraries() -> list[str]:
    """Return the libraries that Python and its modules load."""
    places = Path("/usr/lib/python3.11/lib-dynload")
    modules = sorted(module for name in ("_*socket*.so", "_ssl*.so", "_hashlib*.so") for module in places.glob(name))
    listed = subprocess.run(["ldd", _PYTHON, *modules], capture_output=True, text=True, timeout=60, check=True).stdout
    return sorted(
        {word for line in listed.splitlines() for word in line.split() if word.startswith("/") and ":" not in word}
    )


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.mtime = 0
    return None if any(part.startswith(_UNUSED) for part in Path(entry.name).parts) else entry


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o755, len(content)
    tar.addfile(entry, io.BytesIO(content))
