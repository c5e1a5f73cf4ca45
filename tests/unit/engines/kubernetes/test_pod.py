"""An EnvironmentSpec as a pod: the hardening key by key, and where each mount comes from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.config.sections import KubernetesSettings
from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentSpec, Mount
from tests.unit.engines.kubernetes.made import SETTINGS, made_pod, spec_of


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["spec"]["containers"]
    return only


def test_a_pod_is_confined_to_the_level_restricted_and_more() -> None:
    """Each key that the Pod Security Standards ask for, and those that they leave open."""
    pod = made_pod(spec_of())
    spec, inside = pod["spec"], container(pod)["securityContext"]
    assert inside == {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    whole = spec["securityContext"]
    assert (whole["runAsNonRoot"], whole["runAsUser"], whole["seccompProfile"]) == (
        True,
        20001,
        {"type": "RuntimeDefault"},
    )
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "serviceAccountName"} & spec.keys()
    assert spec["restartPolicy"] == "Never"


def test_limits_are_requests_too() -> None:
    """What was promised is kept free on the node."""
    resources = container(made_pod(spec_of()))["resources"]
    assert resources["limits"] == resources["requests"] == {"memory": str(8 * 2**30), "cpu": "4000m"}


@pytest.mark.parametrize(
    ("asked", "resource", "amount"),
    [("2", "nvidia.com/gpu", "2"), ("h200:1", "nvidia.com/gpu", "1"), ("1g.10gb", "nvidia.com/mig-1g.10gb", "1")],
)
def test_gpus_are_an_extended_resource(asked: str, resource: str, amount: str) -> None:
    assert container(made_pod(spec_of(gpu_request=asked)))["resources"]["limits"][resource] == amount


def test_amd_has_its_own_resource() -> None:
    pod = made_pod(spec_of(gpu_request="1"), KubernetesSettings(gpu_resource="amd.com/gpu", datasets=SETTINGS.datasets))
    assert container(pod)["resources"]["limits"]["amd.com/gpu"] == "1"


def test_only_the_device_plugin_says_which_gpus_are_visible() -> None:
    """A value of ours would win over its own; without GPUs the image's `all` must not count."""
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container(made_pod(spec_of()))["env"]
    with_gpu = container(made_pod(spec_of(gpu_request="1")))["env"]
    assert "NVIDIA_VISIBLE_DEVICES" not in {one["name"] for one in with_gpu}


def test_a_value_is_not_expanded_by_the_cluster() -> None:
    """`$(NAME)` and `$$` mean something in a pod's variables."""
    values = container(made_pod(spec_of(variables={"ODD": "$(HOME) $$x"})))["env"]
    assert {"name": "ODD", "value": "$$(HOME) $$$$x"} in values


def test_nobody_is_root() -> None:
    with pytest.raises(EngineError) as refusal:
        made_pod(replace(spec_of(), uid=0))
    assert refusal.value.code == "engine.unconfined"


def test_a_node_that_does_not_answer_keeps_its_environments() -> None:
    """The cluster does not evict them by itself: one home has one writer."""
    tolerated = {one["key"]: one for one in made_pod(spec_of())["spec"]["tolerations"]}
    assert set(tolerated) == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
    assert all("tolerationSeconds" not in one for one in tolerated.values())


def sources(spec: EnvironmentSpec, settings: KubernetesSettings = SETTINGS) -> dict[str, dict[str, Any]]:
    """Return the volume behind each path inside."""
    pod = made_pod(spec, settings)
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    return {one["mountPath"]: {**volumes[one["name"]], "mount": one} for one in container(pod)["volumeMounts"]}


def test_each_mount_has_its_place_in_the_cluster() -> None:
    found = sources(spec_of())
    assert found["/run/devgw"]["emptyDir"]["medium"] == "Memory"
    assert found["/etc/devgw/env"]["secret"] == {"secretName": "secret-of-alice", "defaultMode": 0o440}
    assert found["/etc/passwd"]["mount"]["subPath"] == "passwd"
    assert found["/home/alice"]["persistentVolumeClaim"]["claimName"].endswith("-home")
    assert found["/checkpoints"]["persistentVolumeClaim"]["claimName"].endswith("-checkpoints")
    assert found["/datasets/imagenet"]["persistentVolumeClaim"] == {"claimName": "imagenet", "readOnly": True}
    assert found["/datasets/imagenet"]["mount"]["readOnly"]
    assert {"/tmp", "/run", "/dev/shm"} <= found.keys()


def test_a_shared_directory_is_mounted_as_it_is(tmp_path: Path) -> None:
    """On every node it has the gateway's path."""
    settings = KubernetesSettings(shared_dirs=(tmp_path,))
    home = tmp_path / "home"
    home.mkdir()
    found = sources(spec_of(mounts=(Mount(home, "/home/alice"),)), settings)
    assert found["/home/alice"]["hostPath"] == {"path": str(home), "type": "Directory"}


@pytest.mark.parametrize("target", ["/datasets/unknown", "/data"])
def test_a_mount_without_a_place_is_refused(target: str) -> None:
    with pytest.raises(EngineError) as refusal:
        made_pod(spec_of(mounts=(Mount(Path("/srv/x"), target, read_only=True),)))
    assert refusal.value.code == "mount.missing"


def test_host_names_are_answered_only_where_something_is_open() -> None:
    assert made_pod(spec_of())["spec"]["dnsPolicy"] == "None"
    assert made_pod(spec_of(egress=Egress.INTERNET))["spec"]["dnsPolicy"] == "ClusterFirst"
    own = KubernetesSettings(dns_servers=("9.9.9.9",), datasets=SETTINGS.datasets)
    assert made_pod(spec_of(egress=Egress.INTERNET), own)["spec"]["dnsConfig"] == {"nameservers": ["9.9.9.9"]}
