"""What may stand after `--gpu`."""

import pytest

from gateway.errors import Exit, UsageError
from gateway.gpu_requests import GpuRequest, parse_gpu_request
from gateway.model import GpuUuid

GPU = "GPU-8fc0f1b4-1111-4222-8333-444444444444"
GPU2 = "GPU-9fc0f1b4-1111-4222-8333-444444444444"
MIG = "MIG-5f0d7d8c-1111-5222-8333-444444444444"
MIG2 = "MIG-6f0d7d8c-1111-5222-8333-444444444444"


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        # none
        ("", GpuRequest()),
        ("0", GpuRequest()),
        ("h200:0", GpuRequest()),
        ("1g.10gb:0", GpuRequest()),
        # whole GPUs
        ("1", GpuRequest(1)),
        (" 2 ", GpuRequest(2)),
        ("h200", GpuRequest(1, model="h200")),
        ("H200:4", GpuRequest(4, model="h200")),
        ("rtx-4090:2", GpuRequest(2, model="rtx-4090")),
        # slices
        ("1g.10gb", GpuRequest(1, profile="1g.10gb")),
        ("1G.10GB:1", GpuRequest(1, profile="1g.10gb")),
        ("1c.2g.20gb", GpuRequest(1, profile="1c.2g.20gb")),
        ("1g.10gb+me", GpuRequest(1, profile="1g.10gb+me")),
        # by name
        (GPU, GpuRequest(1, uuids=(GpuUuid(GPU),))),
        (f"{GPU},{GPU2}", GpuRequest(2, uuids=(GpuUuid(GPU), GpuUuid(GPU2)))),
        (MIG, GpuRequest(1, uuids=(GpuUuid(MIG),))),
    ],
)
def test_a_request_is_read(text: str, request_: GpuRequest) -> None:
    assert parse_gpu_request(text) == request_


@pytest.mark.parametrize(
    "text",
    [
        *("-1", "1.5", "two gpus", "h200:", "h200:-1", ":1", "all:x", "\u0661", "9999999", "1g.gb", "1\n2"),
        *("GPU-", "GPU-x", "MIG-1/2/3", f"{GPU},", f"{GPU},{GPU}", f"{GPU},{GPU.upper()}", f"{GPU};rm"),
    ],
)
def test_anything_else_is_a_usage_error(text: str) -> None:
    """One line that repeats what was typed, and what could be."""
    with pytest.raises(UsageError) as refusal:
        parse_gpu_request(text)
    assert refusal.value.code == "gpu.bad-request"
    assert refusal.value.exit_code == Exit.USAGE
    assert refusal.value.hint
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("text", ["1g.10gb:2", f"{MIG},{MIG2}", f"{GPU},{MIG}"])
def test_several_slices_are_refused_with_the_reason(text: str) -> None:
    """They would look like two GPUs to a distributed job and fail inside NCCL."""
    with pytest.raises(UsageError) as refusal:
        parse_gpu_request(text)
    assert refusal.value.code == "gpu.several-slices"
    assert "one MIG slice" in refusal.value.message


def test_profiles_are_what_a_policy_asks_about() -> None:
    assert parse_gpu_request("1g.10gb").profiles == ("1g.10gb",)
    assert parse_gpu_request("2").profiles == ()
