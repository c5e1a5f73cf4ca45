"""The gateway's own image, built from this checkout and run as its pod is: no root, a read-only root file system.

What the pod's manifest says (probes, the metrics' container, the copying of keys) is taken from it and run.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from gateway.version import VERSION
from tests.engine.build_image import BASE, cache_folder
from tests.support.gateway_process import poll

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]
_ROOT = Path(__file__).parents[2]
_CONTEXT = _ROOT / "containers/gateway/context.py"
_POD = next(
    document["spec"]["template"]["spec"]
    for document in yaml.safe_load_all((_ROOT / "containers/gateway/manifests/gateway/gateway.yaml").read_text())
    if document["kind"] == "StatefulSet"
)
_KEYS = ("user_ca", "ssh_host_ed25519_key", "journal_head")
_ENDS_WITHIN_SECONDS = _POD["terminationGracePeriodSeconds"]
_CONFINED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    # as Kubernetes makes volumes in memory: everybody's, and nothing runs from there
    "tmpfs": dict.fromkeys(
        ("/tmp", "/run/devgw", "/run/devgw-keys", "/var/cache/devgw", "/var/lib/devgw"), "mode=0777"
    ),
}


def _container(name: str) -> dict[str, Any]:
    return next(one for one in [*_POD["initContainers"], *_POD["containers"]] if one["name"] == name)


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=900)
    yield client
    client.close()


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image, built offline but for the distribution's packages."""
    locks, wheels = tmp_path_factory.mktemp("locks"), cache_folder() / "wheelhouse-gateway"
    subprocess.run([sys.executable, str(_CONTEXT), "--locks", str(locks)], check=True, timeout=60)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--disable-pip-version-check",
        "--require-hashes",
        "--no-deps",
    ]
    for lock in ("run.lock", "build.lock"):
        subprocess.run([*pip, "--dest", str(wheels), "--requirement", str(locks / lock)], check=True, timeout=900)
    tag = "devgw/gateway:test"
    context = tmp_path_factory.mktemp("context") / "context.tar"
    with context.open("wb") as target:
        subprocess.run(
            [sys.executable, str(_CONTEXT), "--wheelhouse", str(wheels)], check=True, timeout=300, stdout=target
        )
    with context.open("rb") as opened:
        try:
            engine.images.build(fileobj=opened, custom_context=True, tag=tag, buildargs={"BASE": BASE}, rm=True)
        except docker.errors.BuildError as exc:
            last = "".join(line.get("stream", "") for line in exc.build_log)[-2000:]
            raise AssertionError(f"{exc.msg}: {last}") from exc
    return tag


@pytest.fixture
def gateway(engine: docker.DockerClient, image: str) -> Iterator[Any]:
    """A gateway that serves, started as its image says."""
    container = engine.containers.run(
        image, detach=True, environment={"DEVGW_GPUS_INVENTORY": "none", "DEVGW_SITE_ID": "lab"}, **_CONFINED
    )
    try:
        poll(lambda: b"SSH-2.0-" in _banner(container), f"the port; it says {container.logs().decode()}", 120)
        yield container
    finally:
        container.remove(force=True)


def _banner(container: Any) -> bytes:
    asks = "socat -t 5 -T 5 - TCP:127.0.0.1:2222 </dev/null"
    return bytes(container.exec_run(["/bin/sh", "-c", asks]).output)


def _run(engine: docker.DockerClient, image: str, program: str, *arguments: str, **more: Any) -> str:
    output = engine.containers.run(image, list(arguments), entrypoint=[program], remove=True, **_CONFINED | more)
    return bytes(output).decode()


def test_it_says_its_version_on_a_read_only_root(engine: docker.DockerClient, image: str) -> None:
    output = engine.containers.run(image, ["--version"], remove=True, **_CONFINED)
    assert VERSION in output.decode()


def test_it_is_not_root_and_carries_no_setuid_program_and_no_pip(engine: docker.DockerClient, image: str) -> None:
    looks = "id -u; find / -xdev -perm /6000 -type f 2>/dev/null; ls -d /build 2>&1; python -m pip --version 2>&1"
    uid, build, pip = _run(engine, image, "/bin/sh", "-c", f"{looks}; true").splitlines()
    assert uid == str(_POD["securityContext"]["runAsUser"])
    assert "No such file" in build
    assert "No module named pip" in pip


def test_it_builds_environment_images_with_the_same_sources(engine: docker.DockerClient, image: str) -> None:
    """The wheel in it is this checkout's: the digest of the environment image is the same."""
    says = (
        "from gateway.images.build import ImageRequest, find_image_folder, plan_build; folder = find_image_folder(); "
        "print(plan_build(ImageRequest(), folder, folder.parent / 'runner').digest)"
    )
    inside = _run(engine, image, "/opt/devgw/bin/python", "-c", says).strip()
    here = subprocess.run(
        [sys.executable, "-c", says], capture_output=True, text=True, timeout=120, check=True, cwd=_ROOT
    )
    assert inside == here.stdout.strip()


def test_the_pods_probes_and_metrics_answer_while_it_serves(
    engine: docker.DockerClient, gateway: Any, image: str
) -> None:
    for probe in ("readinessProbe", "livenessProbe"):
        asked = partial(gateway.exec_run, _container("gateway")[probe]["exec"]["command"])
        poll(lambda asked=asked: asked().exit_code == 0, f"{probe} {asked()}", 60)
    forwarder = _container("metrics")["command"]
    gateway.exec_run(forwarder, detach=True)
    asks = "printf 'GET /metrics HTTP/1.0\\r\\nHost: 10.0.0.7:9464\\r\\n\\r\\n' | socat -t 20 - TCP:127.0.0.1:9464"
    poll(lambda: b"\ndevgw_" in gateway.exec_run(["/bin/sh", "-c", asks]).output, "the numbers", 60)


def test_the_liveness_probe_fails_when_the_gateway_hangs(gateway: Any) -> None:
    *shell, probe = _container("gateway")["livenessProbe"]["exec"]["command"]
    assert "-t 20" in probe
    quick = [*shell, probe.replace("-t 20", "-t 3")]
    poll(lambda: gateway.exec_run(quick).exit_code == 0, "the liveness probe", 60)
    # tini is the container's first process, the gateway its child
    stopped = gateway.exec_run(["/bin/sh", "-c", "kill -STOP $(cat /proc/1/task/1/children)"])
    assert stopped.exit_code == 0, stopped.output
    assert gateway.exec_run(quick).exit_code != 0


def test_it_drains_and_ends_within_the_pods_grace(gateway: Any) -> None:
    gateway.kill("SIGTERM")
    assert gateway.wait(timeout=_ENDS_WITHIN_SECONDS)["StatusCode"] == 0, gateway.logs().decode()


def test_keys_of_a_secret_are_copied_so_that_the_gateway_takes_them(
    engine: docker.DockerClient, gateway: Any, image: str, tmp_path: Path
) -> None:
    """What a Secret mounts is root's and readable by the group: the gateway would refuse it."""
    copying = " ".join(_container("keys")["command"])
    shown = "stat -c %a /run/devgw-keys/*; DEVGW_SITE_KEYS_DIR=/run/devgw-keys devgw audit head 2>&1; true"
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in _KEYS:
        content = gateway.exec_run(["cat", f"/var/lib/devgw/keys/{name}"])
        assert content.exit_code == 0, content.output
        (secret / name).write_bytes(content.output)
        (secret / name).chmod(0o440)
        os.chown(secret / name, 0, _POD["securityContext"]["fsGroup"])
    secret.chmod(0o755)
    for parent in list(secret.parents)[:3]:
        parent.chmod(0o755)
    mounts = {str(secret): {"bind": "/keys", "mode": "ro"}}
    output = _run(engine, image, "/bin/sh", "-c", f"{copying} && {shown}", volumes=mounts)
    assert output.splitlines()[:3] == ["600"] * 3
    assert "head.bad-key" not in output
    (secret / "journal_head").unlink()
    with pytest.raises(docker.errors.ContainerError):
        _run(engine, image, "/bin/sh", "-c", copying, volumes=mounts)
