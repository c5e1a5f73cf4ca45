"""What the doctor learns of a Docker daemon, read from its API."""

from pathlib import Path

import pytest

from gateway.engines.docker.diagnostics import DockerDiagnostics
from gateway.errors import EngineError, NotFoundError
from gateway.model import EnvironmentRef
from tests.fakes.docker_daemon import HEALTHY_INFO, scripted_daemon

LABELS = {"devgw.gateway": "one", "devgw.user": "alice", "devgw.name": "main"}


def test_a_daemon_is_examined(tmp_path: Path) -> None:
    """Also what running environments does not need: live-restore, cgroups, which container is whose."""
    with scripted_daemon(tmp_path) as daemon:
        daemon.info = {
            **HEALTHY_INFO, "LiveRestoreEnabled": True, "CgroupDriver": "systemd", "CgroupVersion": "2",
            "DockerRootDir": "/data", "PidsLimit": False,
        }  # fmt: skip
        listed = [{"Id": "a" * 64, "Labels": LABELS}, {"Id": "b" * 64, "Labels": {"devgw.gateway": "one"}}]
        daemon.answers["GET /containers/json"] = (200, listed)
        found = DockerDiagnostics(daemon.url, "one").read()
    assert (found.version, found.api_version, found.gpu_injection) == ("26.1.5", (1, 45), "cdi")
    assert (found.has_live_restore, found.cgroup_driver, found.cgroup_version) == (True, "systemd", "2")
    assert (found.root_directory, found.cdi_directories, found.missing_limits) == (
        "/data",
        ("/etc/cdi",),
        ("processes",),
    )
    assert found.marks == {"a" * 64: EnvironmentRef.parse("alice")}
    assert found.is_local


def test_podman_without_root_is_examined_as_what_it_is(tmp_path: Path) -> None:
    """Its environments run beside its service, and on version 1 of cgroups it drops the limits it says it has."""
    with scripted_daemon(tmp_path) as daemon:
        daemon.info = {
            **HEALTHY_INFO, "BuildahVersion": "1.39.3", "Rootless": True, "CgroupVersion": "1",
            "LiveRestoreEnabled": False,
        }  # fmt: skip
        found = DockerDiagnostics(daemon.url, "one").read()
    assert (found.product, found.is_rootless, found.has_live_restore) == ("Podman", True, True)
    assert found.missing_limits == ("memory", "swap", "processor time", "processes")


def test_docker_without_root_is_told_from_podman(tmp_path: Path) -> None:
    with scripted_daemon(tmp_path) as daemon:
        daemon.info = {**HEALTHY_INFO, "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}
        found = DockerDiagnostics(daemon.url, "one").read()
    assert (found.product, found.is_rootless, found.has_live_restore) == ("Docker", True, False)


def test_an_image_tells_its_labels_and_variables(tmp_path: Path) -> None:
    config = {
        "Labels": {"org.devgw.cuda": "12.8", "maintainer": "NVIDIA"},
        "Env": ["NVIDIA_REQUIRE_CUDA=cuda>=12.8 brand=tesla", "PATH=/bin"],
        "User": "65532:65532",
    }
    with scripted_daemon(tmp_path) as daemon:
        daemon.answers["GET /images"] = (200, {"Id": "sha256:1", "Config": config})
        found = DockerDiagnostics(daemon.url, "one").image("devgw/env:cuda")
    assert found.labels == {"cuda": "12.8"}
    assert found.variables["NVIDIA_REQUIRE_CUDA"] == "cuda>=12.8 brand=tesla"


def test_an_absent_image_and_an_absent_daemon_are_named(tmp_path: Path) -> None:
    with scripted_daemon(tmp_path) as daemon:
        daemon.answers["GET /images"] = (404, {"message": "No such image"})
        with pytest.raises(NotFoundError):
            DockerDiagnostics(daemon.url, "one").image("none")
    with pytest.raises(EngineError):
        DockerDiagnostics(f"unix://{tmp_path}/gone.sock", "one").read()
