"""What is chosen on which device, and why. Devices are made-up facts, so any GPU is tested here."""

from dataclasses import replace

import pytest
from devgw_runner.config import TrainConfig
from devgw_runner.errors import PrecisionError, TaskError, UsageError
from devgw_runner.metrics.peak import model_flops_utilisation, peak_flops
from devgw_runner.plan.build import build_plan, pin_choices, pinned_settings
from devgw_runner.plan.facts import DataFacts, DeviceFacts, Facts, ModelFacts
from devgw_runner.plan.throughput import count_steps
from devgw_runner.resources import Resources

GIB = 2**30
CPU = DeviceFacts("cpu")
H200 = DeviceFacts("cuda", "NVIDIA H200", (9, 0), 132, 139 * GIB, visible=1)
A100 = DeviceFacts("cuda", "NVIDIA A100-SXM4-80GB", (8, 0), 108, 80 * GIB, visible=1)
V100 = DeviceFacts("cuda", "Tesla V100-SXM2-16GB", (7, 0), 80, 16 * GIB, visible=1)
P100 = DeviceFacts("cuda", "Tesla P100", (6, 0), 56, 16 * GIB, visible=1)
SLICE = DeviceFacts("cuda", "NVIDIA H200 MIG 1g.18gb", (9, 0), 16, 17 * GIB, is_mig=True, visible=1)

CONVNET = ModelFacts(25_000_000, 100_000_000, convolutions=53, linear_shapes=((2048, 1000),))
TRANSFORMER = ModelFacts(8_000_000_000, 32_000_000_000, linear_shapes=((4096, 14336), (14336, 4096)))
IMAGES = DataFacts(length=100_000, sample_bytes=600_000, load_seconds_per_sample=0.005)


def facts(device: DeviceFacts = H200, **changes) -> Facts:
    plain = Facts(device, CONVNET, IMAGES, Resources(16, 128 * GIB, 64 * GIB), bytes_per_sample=100 * 2**20)
    return replace(plain, bytes_per_sample=None, **changes) if device.kind == "cpu" else replace(plain, **changes)


def plan(config: dict | None = None, device: DeviceFacts = H200, **changes):
    return build_plan(TrainConfig(**(config or {})), facts(device, **changes), "")


@pytest.mark.parametrize(
    ("device", "precision", "because"),
    [
        (H200, "bf16", "SM 9.0"),
        (A100, "bf16", "SM 8.0"),
        (SLICE, "bf16", "SM 9.0"),
        (V100, "fp16", "loss scaler"),
        (P100, "fp32", "no tensor cores"),
        (CPU, "fp32", "CPU"),
    ],
)
def test_precision_follows_the_device_and_says_why(device, precision, because):
    choice = plan(device=device).precision
    assert choice.value == precision
    assert because in choice.reason


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        (CPU, "fp8"),
        (CPU, "fp16"),
        (CPU, "tf32"),
        (A100, "fp8"),
        (V100, "bf16"),
        (V100, "tf32"),
        (P100, "fp16"),
    ],
)
def test_a_precision_the_device_lacks_is_refused(device, precision):
    with pytest.raises(PrecisionError, match=f"precision {precision} needs"):
        plan({"precision": precision}, device, has_torchao=True)


def test_fp8_is_used_only_where_products_are_large():
    assert plan({"precision": "fp8"}, model=TRANSFORMER, has_torchao=True).precision.value == "fp8"
    small = plan({"precision": "fp8"}, model=CONVNET, has_torchao=True).precision
    assert small.value == "bf16"
    assert "2048x1000" in small.reason


def test_fp8_without_torchao_names_the_extra():
    with pytest.raises(PrecisionError, match="torchao"):
        plan({"precision": "fp8"}, model=TRANSFORMER)


@pytest.mark.parametrize("device", [CPU, H200])
def test_convolutions_get_channels_last_and_others_do_not(device):
    assert plan(device=device).memory_format.value == "channels_last"
    assert plan(device=device, model=TRANSFORMER).memory_format.value == "contiguous"


def test_fsdp_keeps_parameters_contiguous():
    """FSDP2 refuses channels_last weights, without saying which."""
    chosen = plan({"parallel": "fsdp", "memory_format": "channels_last"}, world=2)
    assert chosen.memory_format.value == "contiguous"
    assert "FSDP2" in chosen.memory_format.reason


@pytest.mark.parametrize(
    ("config", "changes", "because"),
    [
        ({}, {"world": 2}, "communicates"),
        ({"batch_size": 64, "micro_batch": 16}, {}, "accumulation"),
        ({"precision": "fp16"}, {}, "scaler"),
        ({"deterministic": True}, {}, "deterministic"),
        ({"last_batch": "eager"}, {}, "size"),
        ({"nan": "skip"}, {}, "--nan skip"),
        ({}, {"has_own_optimizer": True}, "capturable"),
    ],
)
def test_graphs_are_off_where_they_would_be_wrong(config, changes, because):
    """Even when asked for: a graph that computes other numbers is no choice."""
    choice = plan({**config, "graphs": "on"}, **changes).graphs
    assert choice.value == "off"
    assert because in choice.reason


def test_graphs_are_decided_by_measurement_where_they_are_right():
    assert plan().graphs.value == "auto"
    assert plan(device=CPU).graphs.value == "off"


@pytest.mark.parametrize(
    ("device", "changes", "value"),
    [
        (H200, {}, "default"),
        (H200, {"has_compiler": False}, "off"),
        (CPU, {"eager_seconds_per_sample": 0.001}, "off"),  # 100 000 samples an epoch
        (CPU, {"eager_seconds_per_sample": 0.1}, "default"),
    ],
)
def test_compiling_must_repay_itself(device, changes, value):
    assert plan(device=device, **changes).compile.value == value


@pytest.mark.parametrize(
    ("config", "changes", "samples"),
    [
        ({"steps": 10, "batch_size": 8}, {}, 80),
        ({"steps": 1_000_000, "batch_size": 8}, {}, 8_000_000),
        ({"epochs": 3}, {}, 300_000),
        ({"epochs": 2}, {"data": DataFacts(None, loader_batch=64, loader_batches=5)}, 640),
        ({"steps": 7}, {"data": DataFacts(None, loader_batch=64)}, 448),
    ],
)
def test_what_compiling_must_repay_is_the_run_that_was_asked_for(config, changes, samples):
    """--steps counts, and so do the batches of the task's own loader."""
    choice = plan(config, CPU, eager_seconds_per_sample=0.01, **changes).compile
    assert f"about {0.01 * samples:.0f} s of CPU work" in choice.reason


@pytest.mark.parametrize("asked", ["auto", 32])
def test_the_batches_of_an_own_loader_stay_as_they_come(asked):
    chosen = plan({"batch_size": asked}, CPU, data=DataFacts(None, loader_batch=64))
    assert (chosen.batch_size.value, chosen.micro_batch.value) == (64, 64)
    assert "the task's own loader" in chosen.batch_size.reason
    assert ("--batch-size 32 does not change them" in chosen.batch_size.reason) == (asked == 32)


def test_an_own_batch_that_does_not_fit_is_accumulated_too():
    chosen = plan(data=DataFacts(None, loader_batch=8192))
    assert chosen.batch_size.value == 8192
    assert chosen.micro_batch.value < 8192


@pytest.mark.parametrize(("asked", "value"), [("auto", 4), (16, 4), (2, 2)])
def test_what_the_first_look_could_not_hold_is_not_tried_again(asked, value):
    chosen = plan({"batch_size": 16, "micro_batch": asked}, CPU, fitting_samples=4).micro_batch
    assert chosen.value == value
    assert ("asked for" if asked == 2 else "ran out of memory with more than 4") in chosen.reason


def test_automatic_batch_fills_memory_and_leaves_room():
    size = plan().batch_size.value
    assert size % 8 == 0
    assert 0.6 * 139 * GIB < size * 100 * 2**20 < 0.8 * 139 * GIB
    assert plan(device=SLICE).batch_size.value < size / 7
    assert plan(device=CPU).batch_size.value == 32


def test_a_batch_that_does_not_fit_is_accumulated():
    chosen = plan({"batch_size": 8192})
    assert chosen.micro_batch.value < 8192
    assert 8192 / chosen.micro_batch.value <= 9
    assert chosen.graphs.value == "off"


def test_loader_processes_are_bounded_by_cpus_and_shared_memory():
    assert plan({"batch_size": 256}).workers.value == 15
    cramped = facts(resources=Resources(16, 128 * GIB, 2 * GIB))
    chosen = build_plan(TrainConfig(batch_size=256), cramped, "").workers
    assert chosen.value == 3
    assert "/dev/shm" in chosen.reason
    quick = plan(data=DataFacts(1000, 100, 1e-6)).workers
    assert quick.value == 0


def test_several_processes_share_by_ddp_until_the_state_is_too_large():
    assert plan(world=4).parallel.value == "ddp"
    assert plan(world=4, model=TRANSFORMER).parallel.value == "fsdp"


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ({"parallel": "fsdp"}, {}),
        ({"parallel": "single"}, {"world": 2}),
        ({"parallel": "ddp", "cpu_offload": True}, {"world": 2}),
    ],
)
def test_contradicting_parallel_settings_are_refused(config, changes):
    with pytest.raises(UsageError):
        plan(config, **changes)


def test_a_resume_keeps_the_choices_of_its_checkpoint():
    """Otherwise a second measurement could change the bits."""
    numerics = {
        "precision": "bf16",
        "compile": "off",
        "batch_size": 48,
        "micro_batch": 24,
        "memory_format": "contiguous",
    }
    pinned = pin_choices(TrainConfig(precision="fp32"), numerics)
    assert (pinned.precision, pinned.compile, pinned.batch_size, pinned.micro_batch) == (
        "fp32",
        "off",
        48,
        24,
    )


def test_a_pinned_choice_says_that_the_checkpoint_made_it():
    """It was not asked for, and what was asked for beside it is."""
    numerics = {"precision": "fp32", "compile": "off", "batch_size": 48, "micro_batch": 24}
    config = TrainConfig(batch_size=32)
    chosen = build_plan(pin_choices(config, numerics), facts(), "step 5", pinned_settings(config, numerics))
    assert chosen.batch_size.reason == "asked for"
    for choice in (chosen.precision, chosen.compile, chosen.micro_batch):
        assert "as in the checkpoint" in choice.reason


def test_a_checkpoint_in_a_precision_that_this_device_lacks_names_the_way_on():
    """A bf16 checkpoint on a T4: the setting is "auto" already, so that is no advice."""
    t4 = DeviceFacts("cuda", "Tesla T4", (7, 5), 40, 15 * GIB, visible=1)
    numerics = {"precision": "bf16"}
    config = TrainConfig()
    with pytest.raises(PrecisionError) as caught:
        build_plan(pin_choices(config, numerics), facts(t4), "step 5", pinned_settings(config, numerics))
    assert "the checkpoint was made in bf16, which this device lacks: Tesla T4" in caught.value.message
    assert "--precision fp16" in caught.value.hint


def test_fp16_is_left_out_in_deterministic_mode_for_its_own_reason():
    choice = plan({"deterministic": True}, V100).precision
    assert choice.value == "fp32"
    assert "deterministic mode" in choice.reason
    assert "no tensor cores" not in choice.reason


def test_the_explanation_names_every_choice_with_a_reason():
    chosen = plan()
    lines = chosen.explain().splitlines()
    assert len(lines) == len(chosen.choices())
    for line, (name, choice) in zip(lines, chosen.choices().items(), strict=True):
        assert line.startswith(f"{name}={choice.value}")
        assert choice.reason
        assert line.endswith(choice.reason)
    assert set(chosen.to_json()["choices"]) == set(chosen.choices())


def test_epochs_without_a_length_need_steps():
    with pytest.raises(TaskError, match="no length"):
        count_steps(TrainConfig(), None)
    assert count_steps(TrainConfig(steps=7), None) == 7
    assert count_steps(TrainConfig(epochs=3), 5) == 15


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A40", 149.7),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L40", 181.0),
        ("NVIDIA L4", 121.0),
        ("Tesla V100-PCIE-32GB", 112.0),
        ("Tesla V100S-PCIE-32GB", 130.0),
        ("Tesla V100-SXM2-16GB", 125.0),
        ("Tesla T4", 65.0),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA A1000 Laptop GPU", None),
        ("NVIDIA T400 4GB", None),
    ],
)
def test_a_device_has_the_peak_of_its_own_name(name, half):
    """One name may stand inside another: L4, L40, L40S; A10, A10G, A100."""
    peak = peak_flops(DeviceFacts("cuda", name, (8, 0), 1, GIB), "fp16")
    assert peak == (None if half is None else pytest.approx(half * 1e12))


def test_the_peak_of_a_mig_slice_is_its_share_of_multiprocessors():
    whole, part = peak_flops(H200, "bf16"), peak_flops(SLICE, "bf16")
    assert whole == pytest.approx(989.4e12)
    assert part == pytest.approx(989.4e12 * 16 / 132)
    assert peak_flops(CPU, "fp32") is None
    assert peak_flops(CPU, "fp32", override_tflops=0.5) == 0.5e12
    assert model_flops_utilisation(100.0, 1e12, part) == pytest.approx(1e14 / part)
    assert model_flops_utilisation(100.0, None, whole) is None
