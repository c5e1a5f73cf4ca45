"""A checkpoint is complete or absent, and holds exactly what was live when it was asked for."""

import random
import resource

import numpy as np
import pytest
import tiny
import torch
from devgw_runner import run
from devgw_runner.checkpoint import store
from devgw_runner.checkpoint.export import read_weights
from devgw_runner.checkpoint.resume import find_start, restore
from devgw_runner.checkpoint.state import TrainState
from devgw_runner.checkpoint.writer import CheckpointWriter, WriterSettings
from devgw_runner.cli import main
from devgw_runner.errors import CheckpointError, StorageError
from devgw_runner.parallel.world import World
from devgw_runner.sampler import Position
from safetensors.torch import load_file
from torch import nn


def make_state(step: int = 3) -> TrainState:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    state = TrainState(model, optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=False), [], Position(step))
    advance(state)
    return state


def advance(state: TrainState) -> None:
    state.model(torch.randn(6, 4)).sum().backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.scheduler.step()


def make_writer(root, keep: int = 3) -> CheckpointWriter:
    return CheckpointWriter(WriterSettings(root, keep, {"precision": "fp32"}, asynchronous=True), World())


def test_training_on_while_a_checkpoint_is_written_does_not_change_it(tmp_path):
    """The copy is taken before `save` returns; writing goes on behind."""
    state, writer = make_state(), make_writer(tmp_path)
    weight = state.model[0].weight.detach().clone()
    moment = state.optimizer.state[state.model[0].weight]["exp_avg"].clone()
    writer.save(state, wait=False)
    for _ in range(20):
        advance(state)
    writer.wait()
    other = make_state()
    restore(other, find_start("auto", tmp_path).found, World(), {})
    assert torch.equal(other.model[0].weight, weight)
    assert torch.equal(other.optimizer.state[other.model[0].weight]["exp_avg"], moment)


def test_everything_comes_back(tmp_path):
    state, writer = make_state(7), make_writer(tmp_path)
    writer.save(state, wait=True)
    expected = (torch.randn(3), state.optimizer.param_groups[0]["lr"])  # drawn after the save
    other = make_state(0)
    advance(other)
    restore(other, find_start("auto", tmp_path).found, World(), {})
    assert torch.equal(torch.randn(3), expected[0])
    assert other.optimizer.param_groups[0]["lr"] == expected[1]
    assert other.position.step == 7
    assert other.scheduler.last_epoch == state.scheduler.last_epoch
    step = other.optimizer.state[other.model[0].weight]["step"]
    assert step == state.optimizer.state[state.model[0].weight]["step"]


def test_the_generators_of_python_numpy_and_torch_come_back(tmp_path):
    """A model or a hook may draw from any of them; data sets are seeded for each batch and would not notice."""

    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002 - the global generator is what is tested

    state = make_state()
    make_writer(tmp_path).save(state, wait=True)
    expected = drawn()
    drawn()
    restore(make_state(), find_start("auto", tmp_path).found, World(), {})
    assert drawn() == expected


def test_a_process_takes_the_buffers_of_its_own_file(tmp_path):
    """Under FSDP2 each process has statistics of its own; the common tensors hold those of the main one."""
    make_writer(tmp_path).save(make_state(), wait=True)
    found = find_start("auto", tmp_path).found
    file = found.path / "trainer-0.pt"
    saved = torch.load(file, weights_only=True)
    saved["buffers"]["1.running_mean"] += 5.0
    torch.save(saved, file)
    other = make_state()
    restore(other, found, World(), {})
    assert torch.equal(other.model[1].running_mean, saved["buffers"]["1.running_mean"])


def make_scaler(scale: float, *, steps_since_overflow: int) -> torch.amp.GradScaler:
    """A loss scaler of a run in fp16; on a CPU it works as it does on a GPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=8, enabled=True)
    scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": steps_since_overflow})
    return scaler


def test_the_loss_scaler_goes_on_where_it_was(tmp_path):
    """Its scale, and how many steps went well since the last overflow: both decide when it grows again."""
    state, other = make_state(), make_state()
    state.scaler = make_scaler(512.0, steps_since_overflow=5)
    other.scaler = make_scaler(65536.0, steps_since_overflow=0)
    make_writer(tmp_path).save(state, wait=True)
    restore(other, find_start("auto", tmp_path).found, World(), {})
    assert other.scaler.state_dict() == state.scaler.state_dict()
    assert scales(other) == [512.0, 512.0, 512.0, 1024.0]  # it grows at the eighth step


def scales(state: TrainState) -> list[float]:
    """Return the scale of each of four steps without an overflow."""
    found = []
    for _ in range(4):
        state.scaler.scale(state.model(torch.randn(6, 4)).sum()).backward()
        found.append(state.scaler.get_scale())
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
    return found


def test_a_checkpoint_before_the_first_step_makes_no_optimizer_state(tmp_path):
    """The get_state_dict of torch would take a step to make some."""
    state = make_state()
    state.optimizer.state.clear()
    make_writer(tmp_path).save(state, wait=True)
    assert not state.optimizer.state
    other = make_state()
    other.optimizer.state.clear()
    restore(other, find_start("auto", tmp_path).found, World(), {})
    assert not other.optimizer.state


def test_only_the_newest_are_kept_and_leftovers_are_swept(tmp_path):
    (tmp_path / ".tmp-step-00000001").mkdir()
    writer, state = make_writer(tmp_path, keep=2), make_state()
    assert not (tmp_path / ".tmp-step-00000001").exists()
    for step in (1, 5, 12):
        state.position = Position(step)
        writer.save(state, wait=True)
    assert [path.name for path in store.list_checkpoints(tmp_path)] == ["step-00000012", "step-00000005"]
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000012", "step-00000005"}


def test_a_write_that_the_kernel_refuses_is_reported_and_leaves_nothing_half(tmp_path):
    """A file-size limit stands for a quota: the space check passes, the write itself fails (EFBIG)."""
    writer, state = make_writer(tmp_path), make_state(1)
    writer.save(state, wait=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    state.position = Position(2)
    state.model.register_buffer("ballast", torch.zeros(300_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match="no space left while saving a checkpoint") as caught:
            writer.save(state, wait=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == 13
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001"}
    store.verify(tmp_path / "step-00000001")


def test_a_failure_in_the_background_is_raised_at_the_next_poll(tmp_path):
    """A file where the sealed directory must go: the copy succeeds, the seal behind it does not."""
    (tmp_path / "step-00000001").write_text("in the way")
    writer = make_writer(tmp_path)
    writer.save(make_state(1), wait=False)
    writer._sealing.join()
    with pytest.raises(StorageError):
        writer.poll()
    writer.poll()  # told once
    assert not list(tmp_path.glob(".tmp-*"))


def test_any_flipped_bit_is_found(tmp_path):
    make_writer(tmp_path).save(make_state(1), wait=True)
    checkpoint = tmp_path / "step-00000001"
    for path in sorted(checkpoint.iterdir()):
        original = path.read_bytes()
        broken = bytearray(original)
        broken[len(broken) // 3] ^= 0x10
        path.write_bytes(broken)
        if path.name != store.MANIFEST:  # a flip in the manifest's prose changes no checksum
            with pytest.raises(CheckpointError, match="does not match its checksum"):
                store.verify(checkpoint)
        path.write_bytes(original)
    assert store.verify(checkpoint).step == 1


def test_export_writes_the_weights_as_safetensors_without_the_script(tmp_path, paths, capsys):
    assert run(tiny.Tiny, ["--run-name", "tiny", "--steps", "3"]) == 0
    output = tmp_path / "model.safetensors"
    assert main(["export", "--checkpoint", str(paths.checkpoints), "--output", str(output)]) == 0
    weights = load_file(output)
    expected = read_weights(paths.checkpoints / "step-00000003")
    assert weights.keys() == expected.keys() == tiny.Tiny().model(tiny.TinyConfig()).state_dict().keys()
    for name, value in weights.items():
        assert torch.equal(value, expected[name])
    assert main(["export", "--checkpoint", str(paths.checkpoints), "--output", "/nowhere/x"]) == 13


def test_checkpoints_lists_and_verifies(paths, capsys):
    assert run(tiny.Tiny, ["--run-name", "tiny", "--steps", "4", "--checkpoint-every", "2"]) == 0
    capsys.readouterr()
    assert main(["checkpoints", str(paths.checkpoints)]) == 0
    assert capsys.readouterr().out.count("intact") == 2
    (paths.checkpoints / "step-00000002" / "trainer-0.pt").unlink()
    assert main(["checkpoints", str(paths.checkpoints), "-o", "json"]) == 12
    assert "trainer-0.pt is missing" in capsys.readouterr().out


def test_resume_can_name_one_checkpoint_or_be_off(paths, capsys):
    flags = ["--run-name", "tiny", "--checkpoint-every", "2"]
    assert run(tiny.Tiny, [*flags, "--steps", "6"]) == 0
    named = str(paths.checkpoints / "step-00000002")
    assert run(tiny.Tiny, [*flags, "--steps", "4", "--resume", named]) == 0
    assert "resumed from step-00000002" in capsys.readouterr().out
    assert run(tiny.Tiny, [*flags, "--steps", "2", "--resume", "off"]) == 0
    assert "resumed" not in capsys.readouterr().out
