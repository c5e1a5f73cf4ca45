"""A traced step in words: the three largest kinds of work, by kernels where there are any."""

import json
from types import SimpleNamespace

import pytest
import tiny
from devgw_runner import run
from devgw_runner.profile_summary import OTHER, kind_of, summarise


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::mm", "matrix products"),
        ("aten::convolution_backward", "convolutions"),
        ("sm90_xmma_fprop_implicit_gemm_bf16", "convolutions"),
        ("ampere_bf16_s16816gemm_128x128", "matrix products"),
        ("flash_fwd_kernel", "attention"),
        ("aten::native_batch_norm", "normalisation"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "communication between processes"),
        ("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", "waiting for data"),
        ("Memcpy HtoD (Pinned -> Device)", "copies between host and device"),
        ("aten::_fused_adamw_", "the optimizer's update"),
        ("triton_poi_fused_relu_0", "fused kernels of the compiler"),
        ("aten::relu", OTHER),
    ],
)
def test_operations_and_kernels_have_their_kind(name, kind):
    assert kind_of(name) == kind


def event(key: str, cpu: float, device: float = 0.0, kind: str = "DeviceType.CPU") -> SimpleNamespace:
    return SimpleNamespace(key=key, self_cpu_time_total=cpu, self_device_time_total=device, device_type=kind)


def test_the_three_largest_costs_are_told_with_their_shares():
    averages = [event("aten::addmm", 600), event("aten::mm", 200), event("aten::relu", 150), event("aten::copy_", 50)]
    summary = summarise(averages, steps=2)
    assert summary.words() == (
        "of 0.50 ms CPU time per step: 80% matrix products (most of it aten::addmm), 15% elementwise and other "
        "operations (most of it aten::relu), 5% copies and layout changes (most of it aten::copy_)"
    )


def test_kernels_count_where_there_are_any_and_once():
    """An operation on the host carries its kernels' time too; that is not added a second time."""
    averages = [
        event("aten::convolution", cpu=900, device=300),
        event("implicit_gemm_kernel", cpu=0, device=300, kind="DeviceType.CUDA"),
        event("elementwise_kernel", cpu=0, device=100, kind="DeviceType.CUDA"),
    ]
    summary = summarise(averages, steps=1)
    assert (summary.where, summary.microseconds) == ("GPU", 400)
    assert [cost.share for cost in summary.costs] == [0.75, 0.25]


def test_a_real_run_says_what_it_spends_its_time_on(paths):
    flags = ["--run-name", "tiny", "--steps", "8", "--profile", "2", "--width", "512"]
    assert run(tiny.Tiny, flags) == 0
    text = paths.events("profile")[0]["text"]
    assert text.startswith("of ")
    assert "ms CPU time per step: " in text
    written = json.loads((paths.logs / "profile.json").read_text())
    assert written["version"] == 1
    assert sum(cost["share"] for cost in written["costs"]) == pytest.approx(1)
    kinds = [cost["kind"] for cost in written["costs"]]
    assert "matrix products" in kinds
    assert "the optimizer's update" in kinds
