"""The model comes to its device before anything runs on it; under FSDP2 it is never there as a whole."""

from pathlib import Path

import pytest
import torch
from devgw_runner.checkpoint.staging import known_parameters, pinned_stager
from devgw_runner.environment import _allocator_settings
from devgw_runner.graphs import make_capturable, settle_settings
from torch import nn
from torch.optim.lr_scheduler import StepLR

from conftest import SCRIPTS, RunPaths

SCRIPT = SCRIPTS / "sharded.py"
FSDP = ("--nproc", "2", SCRIPT, "--parallel", "fsdp", "--run-name", "tiny", "--steps", "4", "--log-every", "1")


def notes(tmp_path: Path) -> set[str]:
    return {line for path in tmp_path.glob("calls-*") for line in path.read_text().splitlines()}


@pytest.mark.slow
@pytest.mark.parametrize("meta", ["", "1"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_sharded_model_was_never_whole_and_its_output_is_fp32(finished, paths, tmp_path, precision, meta):
    """From the first look on; what leaves the model in bf16 would give a loss of three digits."""
    done = finished(*FSDP, "--precision", precision, META=meta)
    assert done.returncode == 0, done.stderr
    assert notes(tmp_path) == {"sharded torch.float32"}
    assert paths.steps() == [4]
    assert all(0 < record["loss"] < 100 for record in paths.records())  # initialised, not what memory held before
    again = finished(*FSDP, "--precision", precision, "--steps", "6", META=meta)
    assert "resumed from step-00000004" in again.stdout, again.stderr


@pytest.mark.slow
def test_a_model_on_the_meta_device_trains_in_one_process_too(finished, paths, tmp_path):
    done = finished(SCRIPT, "--run-name", "tiny", "--steps", "80", "--learning-rate", "0.03", META="1")
    assert done.returncode == 0, done.stderr
    assert notes(tmp_path) == {"whole torch.float32"}
    losses = [record["loss"] for record in paths.records()]
    assert losses[-1] < losses[0] / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"META": "1", "RESET": "no"}, "bare (Bare) is on the meta device and cannot initialise itself"),
        ({"META": "1", "TIED": "1"}, "are one tensor, which does not survive the meta device"),
    ],
)
def test_a_model_that_the_meta_device_would_change_is_refused(finished, variables, message):
    done = finished(SCRIPT, "--run-name", "tiny", "--steps", "4", **variables)
    assert done.returncode == 10, done.stderr
    assert message in done.stderr


def resumed_optimizer(device: str) -> torch.optim.Optimizer:
    """As after a resume of a graphed run: the learning rates were loaded into host memory."""
    groups = [{"params": [nn.Parameter(torch.empty(3, device=device))], "lr": rate} for rate in (0.1, 0.2)]
    optimizer = torch.optim.AdamW(groups)
    for group in optimizer.param_groups:
        group["lr"], group["capturable"] = torch.tensor(group["lr"]), True
    return optimizer


@pytest.mark.parametrize("prepare", [make_capturable, settle_settings])
def test_a_resumed_learning_rate_comes_to_its_parameters(prepare):
    """In host memory a capture would bake its value in. The meta device stands for the GPU."""
    optimizer = resumed_optimizer("meta")
    prepare(optimizer)
    assert [group["lr"].device.type for group in optimizer.param_groups] == ["meta", "meta"]


def test_a_graphed_checkpoint_goes_on_on_a_cpu():
    """Which has no capturable optimizer: torch would refuse the step."""
    optimizer = resumed_optimizer("cpu")
    settle_settings(optimizer)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(3)
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.2])


def test_a_schedule_writes_into_the_learning_rate_that_a_graph_reads():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(3))], lr=0.1)
    schedule = StepLR(optimizer, 1, gamma=0.5)
    make_capturable(optimizer)
    rate = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["params"][0].grad = None
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.05)


def test_step_counts_go_to_the_device_of_their_own_parameter():
    cpu, meta = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.empty(2, device="meta"))
    optimizer = torch.optim.AdamW([{"params": [cpu]}, {"params": [meta]}], lr=0.1)
    for parameter in (cpu, meta):
        optimizer.state[parameter]["step"] = torch.tensor(1.0)
    make_capturable(optimizer)
    assert [optimizer.state[p]["step"].device.type for p in (cpu, meta)] == ["cpu", "meta"]


@pytest.mark.parametrize(
    ("torch_version", "user", "names"),
    [
        ("2.8.0", {}, {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}),
        ("2.9.1+cu128", {}, {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}),
        ("2.10.0", {}, {"PYTORCH_ALLOC_CONF"}),
        ("2.13.0+cpu", {}, {"PYTORCH_ALLOC_CONF"}),
        ("2.13.0", {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, set()),
        ("2.8.0", {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, set()),
    ],
)
def test_the_allocator_is_told_under_the_names_that_this_torch_reads(torch_version, user, names):
    assert set(_allocator_settings(user, torch_version)) == names


class NewStaging:
    """As torch 2.9 and later have it."""

    @staticmethod
    def StagingOptions(**options) -> dict:  # noqa: N802 - torch's own name
        return options

    @staticmethod
    def DefaultStager(options) -> dict:  # noqa: N802 - torch's own name
        return options


def test_on_a_gpu_checkpoints_are_staged_in_pinned_memory_without_waiting_for_each_tensor():
    options = pinned_stager(torch.device("cuda", 0), NewStaging)
    assert options["use_pinned_memory"]
    assert options["use_non_blocking_copy"]
    assert not options["use_async_staging"]
    assert pinned_stager(torch.device("cpu"), NewStaging) is None
    assert pinned_stager(torch.device("cuda", 0), object()) is None


def test_async_save_is_given_what_it_knows():
    wanted = {"no_dist": True, "process_group": None, "async_stager": 1}
    assert known_parameters(wanted, frozenset({"process_group"})) == {}
    assert known_parameters(wanted, frozenset(wanted)) == {"no_dist": True, "async_stager": 1}


def test_the_real_stager_is_made_of_options_that_it_has():
    """Its constructor is the same without a GPU, up to the memory that it pins."""
    from torch.distributed.checkpoint import staging

    fields = staging.StagingOptions.__dataclass_fields__ if hasattr(staging, "StagingOptions") else None
    assert fields is None or {"use_pinned_memory", "use_non_blocking_copy", "use_async_staging"} <= set(fields)


@pytest.mark.slow
def test_the_runs_of_the_worlds_still_agree(finished, tmp_path):
    """One process and two sharded ones begin with the same weights: the first loss is that of the same model."""
    flags = ("--steps", "1", "--log-every", "1")
    assert finished(*FSDP[:6], "two", *flags).returncode == 0
    assert finished(SCRIPT, "--run-name", "one", "--batch-size", "16", *flags).returncode == 0
    one, two = (RunPaths(tmp_path, name).records()[0]["loss"] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-5)
