"""A start that goes wrong, told in the cluster's own words and in our codes."""

from typing import Any

import pytest

from gateway.engines.kubernetes.launch import (
    failure_of,
    lasting_mount_failure,
    refusal_to_place,
    unschedulable,
)
from gateway.errors import EngineError, NotFoundError, QueuedError
from tests.unit.engines.kubernetes.made import pod_in


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return pod_in({"waiting": {"reason": reason, "message": message}}, phase="Pending")


@pytest.mark.parametrize("pod", [pod_in({"running": {}}), pod_in(phase="Pending"), waiting("ContainerCreating")])
def test_what_runs_or_may_run_is_no_failure(pod: dict[str, Any]) -> None:
    assert failure_of(pod, "img") is None


def test_an_end_by_itself_is_no_failure_to_start() -> None:
    assert failure_of(pod_in({"terminated": {"exitCode": 1}}, phase="Failed"), "img") is None


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"])
def test_an_image_that_no_node_can_get_is_not_found(reason: str) -> None:
    failure = failure_of(waiting(reason, "manifest unknown"), "lab/env:1")
    assert isinstance(failure, NotFoundError)
    assert (failure.code, "lab/env:1" in failure.message) == ("image.not-found", True)


def test_the_first_failed_pull_is_tried_again() -> None:
    """A registry may be slow for a moment; the kubelet itself tries again."""
    assert failure_of(waiting("ErrImagePull", "timeout"), "img") is None


@pytest.mark.parametrize(
    ("pod", "code"),
    [
        (waiting("CreateContainerError", "failed to generate spec: nvidia-container-cli: no device"), "gpu.injection"),
        (waiting("CreateContainerConfigError", "secret not available"), "engine.failed"),
        (
            pod_in(phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed: device plugin gone"),
            "gpu.injection",
        ),
        (pod_in(phase="Failed", reason="OutOfnvidia.com/gpu", message="Node didn't have enough"), "gpu.none-free"),
        (pod_in({"terminated": {"exitCode": 128, "message": "exec: not found"}}, phase="Failed"), "engine.failed"),
    ],
)
def test_a_node_that_refuses_is_told_in_its_words(pod: dict[str, Any], code: str) -> None:
    failure = failure_of(pod, "img")
    assert failure is not None
    assert failure.code == code


NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


def test_the_scheduler_is_quoted() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_GPU}
    reason = unschedulable(pod_in(phase="Pending", conditions=[condition]))
    failure = refusal_to_place(reason, ())
    assert isinstance(failure, QueuedError)
    assert (failure.code, failure.message) == ("gpu.none-free", NO_GPU)


def test_a_volume_that_does_not_come_is_no_queue() -> None:
    """Waiting would not help; the claim's event has the reason."""
    events = [{"reason": "ProvisioningFailed", "message": 'storageclass.storage.k8s.io "fast" not found'}]
    failure = refusal_to_place("0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.", events)
    assert isinstance(failure, EngineError)
    assert (failure.code, '"fast" not found' in failure.message) == ("mount.missing", True)


def test_only_a_mount_that_cannot_come_is_given_up() -> None:
    gone = {
        "reason": "FailedMount",
        "message": "MountVolume.SetUp failed: hostPath type check failed: /x is not a directory",
    }
    late = {"reason": "FailedMount", "message": "Unable to attach or mount volumes: timed out waiting"}
    assert lasting_mount_failure([late]) is None
    assert lasting_mount_failure([late, gone]).code == "mount.missing"
