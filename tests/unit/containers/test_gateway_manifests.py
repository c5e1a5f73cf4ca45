"""What the gateway's manifests promise: confined pods, the fewest rights, no key in a file, settings of devgw."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.sections import Settings
from gateway.config.ssh import SshSettings

ROOT = Path(__file__).parents[3]
_MANIFESTS = ROOT / "containers/gateway/manifests"


def _objects(part: str) -> Iterator[dict[str, Any]]:
    """All that a part makes, as its kustomization names it."""
    kustomization = yaml.safe_load((_MANIFESTS / part / "kustomization.yaml").read_text())
    for resource in kustomization["resources"]:
        place = _MANIFESTS / part / resource
        if place.is_dir():
            yield from _objects(place.resolve().name)
        else:
            yield from yaml.safe_load_all(place.read_text())


def _one(kind: str, name: str = "devgw") -> dict[str, Any]:
    return next(one for one in _objects("monitoring") if (one["kind"], one["metadata"]["name"]) == (kind, name))


POD = _one("StatefulSet")["spec"]["template"]["spec"]
CONTAINERS = [*POD["initContainers"], *POD["containers"]]


def test_every_file_is_named_by_a_kustomization() -> None:
    named = {
        (part.parent / resource).resolve()
        for part in _MANIFESTS.glob("*/kustomization.yaml")
        for resource in yaml.safe_load(part.read_text())["resources"]
    }
    files = {path for path in _MANIFESTS.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert files
    assert {path.resolve() for path in files} <= named


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: str(container["name"]))
def test_each_container_is_confined(container: dict[str, Any]) -> None:
    """As Pod Security "restricted" asks, and with a read-only root beside it."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & POD.keys()
    assert not any("hostPath" in volume for volume in POD["volumes"])


def test_what_is_mounted_is_a_volume_of_the_pod_and_what_the_image_writes_to_is_mounted() -> None:
    volumes = {volume["name"] for volume in POD["volumes"]}
    assert {mount["name"] for container in CONTAINERS for mount in container["volumeMounts"]} == volumes
    written = {mount["mountPath"] for mount in POD["containers"][0]["volumeMounts"] if not mount.get("readOnly")}
    dockerfile = (ROOT / "containers/gateway/Dockerfile").read_text()
    for name in ("STATE", "RUN", "CACHE"):
        [place] = [word.split("=")[1] for word in dockerfile.split() if word.startswith(f"DEVGW_{name}_DIR=")]
        assert place in written
    assert "/tmp" in written


def test_no_secret_stands_in_the_manifests_and_every_key_is_copied() -> None:
    assert [one for one in _objects("monitoring") if one["kind"] == "Secret"] == []
    copied = {Path(word).name for word in POD["initContainers"][0]["command"] if word.startswith("/keys/")}
    assert copied == {"user_ca", "ssh_host_ed25519_key", "journal_head"}


def test_rights_are_the_engines_and_those_on_secrets_do_not_reach_the_gateways_own() -> None:
    role, cluster = _one("Role"), _one("ClusterRole")
    given = [rule for one in (role, cluster) for rule in one["rules"]]
    assert not any("*" in rule[key] for rule in given for key in ("apiGroups", "resources", "verbs"))
    assert sorted(resource for rule in cluster["rules"] for resource in rule["resources"]) == [
        "nodes",
        "storageclasses",
    ]
    assert {verb for rule in cluster["rules"] for verb in rule["verbs"]} <= {"get", "list", "watch"}
    assert role["metadata"]["namespace"] != _one("StatefulSet")["metadata"]["namespace"]
    [account] = _one("RoleBinding")["subjects"]
    assert account["name"] == POD["serviceAccountName"]
    assert account["namespace"] == _one("StatefulSet")["metadata"]["namespace"]


def test_services_budget_and_policies_choose_the_gateways_pods() -> None:
    labels = _one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    choosers = [
        _one("StatefulSet")["spec"]["selector"]["matchLabels"],
        _one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        _one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        _one("Service")["spec"]["selector"],
        _one("Service", "devgw-metrics")["spec"]["selector"],
    ]
    assert choosers == [labels] * len(choosers)
    watched = _one("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert watched.items() <= _one("Service", "devgw-metrics")["metadata"]["labels"].items()
    ports = {port["name"] for container in POD["containers"] for port in container.get("ports", [])}
    asked = {
        port["targetPort"] for name in ("devgw", "devgw-metrics") for port in _one("Service", name)["spec"]["ports"]
    }
    assert asked == ports


def test_clients_addresses_arrive_and_one_gateway_stays() -> None:
    assert _one("Service")["spec"]["externalTrafficPolicy"] == "Local"
    assert _one("PodDisruptionBudget")["spec"]["maxUnavailable"] < _one("StatefulSet")["spec"]["replicas"]


def test_the_drain_ends_before_the_pods_grace() -> None:
    assert POD["terminationGracePeriodSeconds"] > SshSettings().drain_seconds


def test_the_rights_are_those_that_the_engines_page_names() -> None:
    page = (ROOT / "docs/reference/kubernetes-engine.md").read_text()
    block = page.partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(block)["rules"] == _one("Role")["rules"]


def test_the_settings_are_devgws(tmp_path: Path) -> None:
    given = tomllib.loads(_one("ConfigMap")["data"]["devgw.toml"])
    places = {f"{name}_dir": tmp_path for name in ("config", "state", "run", "cache")}
    settings = Settings(**given, **places, database_url="postgresql+psycopg://h/d")
    assert settings.engine.kind == "kubernetes"
    assert settings.kubernetes.namespace == _one("Role")["metadata"]["namespace"]
    keys = [mount["mountPath"] for mount in POD["containers"][0]["volumeMounts"] if mount["name"] == "keys"]
    assert [settings.site.keys_dir] == keys
