"""The manifests as a real API takes them: run with `tests/setup/with_cluster`."""

import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
_MANIFESTS = Path(__file__).parents[2] / "containers/gateway/manifests/gateway"


def kubectl(*arguments: str, text: str = "") -> str:
    command = ["kubectl", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def manifests() -> str:
    """All of them. This cluster is of 1.20, which has the budget as v1beta1 with the same fields."""
    made = kubectl("kustomize", str(_MANIFESTS))
    assert "policy/v1\n" in made
    kubectl("apply", "-f", str(_MANIFESTS / "namespaces.yaml"))  # what lies in one cannot be tried without it
    return made.replace("policy/v1\n", "policy/v1beta1\n")


def test_the_api_takes_all_of_them(manifests: str) -> None:
    said = kubectl("apply", "--dry-run=server", "-f", "-", text=manifests)
    for one in ("statefulset.apps/devgw", "poddisruptionbudget.policy/devgw", "service/devgw", "configmap/devgw",
                "persistentvolumeclaim/devgw-state", "networkpolicy.networking.k8s.io/devgw"):  # fmt: skip
        assert f"{one} created (server dry run)" in said


def test_a_wrong_one_is_refused(manifests: str) -> None:
    """The test above could fail."""
    with pytest.raises(AssertionError, match=r"unknown|Invalid|Unsupported"):
        kubectl("apply", "--dry-run=server", "-f", "-", text=manifests.replace("type: LoadBalancer", "type: Balancer"))


def test_the_account_may_what_the_role_says_and_no_more(manifests: str) -> None:
    kubectl("apply", "-f", str(_MANIFESTS / "rights.yaml"))
    account = ("--as", "system:serviceaccount:devgw-gateway:devgw")

    def may(verb: str, what: str, namespace: str) -> bool:
        command = ["kubectl", "auth", "can-i", verb, what, "-n", namespace, *account]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout.strip().splitlines()[-1] == "yes"

    for verb, what in (("create", "pods"), ("create", "pods/exec"), ("get", "secrets"), ("list", "nodes")):
        assert may(verb, what, "devgw"), f"{verb} {what}"
    for verb, what, namespace in (
        ("get", "secrets", "devgw-gateway"), ("get", "secrets", "default"), ("create", "pods", "devgw-gateway"),
        ("delete", "nodes", "devgw"), ("update", "pods", "devgw"), ("create", "roles", "devgw"),
    ):  # fmt: skip
        assert not may(verb, what, namespace), f"{verb} {what} in {namespace}"
