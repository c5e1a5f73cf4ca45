"""Activations computed again instead of kept: the same bits, batch norm's statistics moved once, and fewer kept."""

import blocks
import pytest
import torch
from devgw_runner import run
from devgw_runner.activation_checkpointing import recompute_blocks
from devgw_runner.checkpoint.export import read_weights
from devgw_runner.checkpoint.store import step_directory
from torch import nn


class Normed(blocks.Blocks):
    """Blocks with batch norm and dropout: what a repeated forward pass could get wrong."""

    def model(self, cfg):
        stack = blocks.Stack()
        stack.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Tanh()) for _ in range(3)
        )
        return stack


@pytest.mark.parametrize("task", [blocks.Blocks, Normed])
def test_the_bits_stay_the_same(paths, task):
    got = []
    for name, how in (("kept", "off"), ("again", "blocks")):
        assert run(task, ["--run-name", name, "--steps", "5", "--activation-checkpointing", how]) == 0
        got.append(read_weights(step_directory(paths.checkpoints.parent / name, 5)))
    assert got[0].keys() == got[1].keys()
    for name, value in got[0].items():
        assert torch.equal(value, got[1][name]), name


def test_less_is_kept_for_the_backward_pass():
    """What autograd saves, counted by its own hooks."""

    def kept(model: nn.Module) -> int:
        sizes: list[int] = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(64, 8))
        return sum(sizes)

    plain = blocks.Stack()
    again = blocks.Stack()
    assert recompute_blocks(list(again.blocks), "Stack") == 3
    assert kept(again) < 0.8 * kept(plain)


class Flat(blocks.Blocks):
    def model(self, cfg):
        return nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 1))


class Named(Flat):
    def blocks(self, model):
        return [model[0]]


def test_a_model_without_blocks_is_told_how_to_name_them(capsys, paths):
    assert run(Flat, ["--run-name", "tiny", "--steps", "2", "--activation-checkpointing", "blocks"]) == 10
    assert "let Flat.blocks(model) return the repeated layers" in capsys.readouterr().err
    assert run(Named, ["--run-name", "tiny", "--steps", "2", "--activation-checkpointing", "blocks"]) == 0
