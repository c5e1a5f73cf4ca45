"""Every state comes back with the strides, dtype and place it was saved with, or is refused by name."""

import numpy as np
import pytest
import torch
from devgw_runner.checkpoint.encoding import decode, encode
from devgw_runner.checkpoint.layout import Layout, is_separate
from devgw_runner.checkpoint.resume import find_start, restore
from devgw_runner.checkpoint.state import TrainState
from devgw_runner.checkpoint.writer import CheckpointWriter, WriterSettings
from devgw_runner.errors import CheckpointError, TaskError
from devgw_runner.parallel.world import World
from devgw_runner.sampler import Position
from subjects import MixedState
from torch import nn

CHANNELS_LAST = {"device": "cpu", "parallel": "single", "memory_format": "channels_last"}


def make_state(make_optimizer, dtype=torch.float32, memory_format=torch.channels_last) -> TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(dtype=dtype, memory_format=memory_format)
    optimizer = make_optimizer(model.parameters())
    return TrainState(model, optimizer, None, torch.amp.GradScaler("cpu", enabled=False), [], Position(1))


def advance(state: TrainState, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 5, 5, dtype=next(state.model.parameters()).dtype)
    state.model(x.contiguous(memory_format=torch.channels_last)).square().mean().backward()
    state.optimizer.step()
    state.optimizer.zero_grad()


def save(root, state: TrainState, made=CHANNELS_LAST) -> None:
    numerics = {"memory_format": made["memory_format"]}
    settings = WriterSettings(
        root, 3, numerics, asynchronous=False, made={k: v for k, v in made.items() if k != "memory_format"}
    )
    CheckpointWriter(settings, World()).save(state, wait=True)


def load(root, state: TrainState, made=CHANNELS_LAST) -> list[str]:
    return restore(state, find_start("auto", root).found, World(), made).not_exact


def fused_adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.1, fused=True)


def test_moments_of_channels_last_weights_come_back_channels_last(tmp_path):
    """Contiguous ones would be read permuted by the fused kernel: one step would be off by the learning rate."""
    state, other = make_state(fused_adamw), make_state(fused_adamw)
    for seed in range(3):
        advance(state, seed)
    save(tmp_path, state)
    assert load(tmp_path, other) == []
    moment = other.optimizer.state[other.model[0].weight]["exp_avg"]
    assert moment.stride() == state.model[0].weight.stride() == (27, 1, 9, 3)
    for one in (state, other):
        advance(one, 9)
    for a, b in zip(state.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_change_of_the_memory_format_lays_moments_out_like_their_weights_and_is_said(tmp_path):
    """The values are the same, element by element; the bits that follow may differ by rounding."""
    state = make_state(fused_adamw)
    other = make_state(fused_adamw, memory_format=torch.contiguous_format)
    advance(state, 1)
    save(tmp_path, state)
    assert load(tmp_path, other, CHANNELS_LAST | {"memory_format": "contiguous"}) == [
        "memory_format is contiguous, was channels_last: not bit-exact"
    ]
    for name in ("exp_avg", "exp_avg_sq"):
        moment = other.optimizer.state[other.model[0].weight][name]
        assert moment.is_contiguous()
        assert torch.equal(moment, state.optimizer.state[state.model[0].weight][name])


def test_a_weight_that_the_code_lays_out_otherwise_comes_back_as_it_was_saved(tmp_path):
    state, other = make_state(fused_adamw), make_state(fused_adamw)
    other.model[0].weight.data = other.model[0].weight.data.contiguous()
    advance(state, 1)
    save(tmp_path, state)
    load(tmp_path, other)
    assert other.model[0].weight.stride() == (27, 1, 9, 3)


def test_state_of_any_kind_keeps_dtype_strides_and_sharing(tmp_path):
    """Torch's load_state_dict would cast float32 and integers to the weights' bfloat16."""
    state, other = (make_state(lambda p: MixedState(p, 0.01), torch.bfloat16) for _ in range(2))
    advance(state, 1)
    save(tmp_path, state)
    load(tmp_path, other)
    there = state.optimizer.state[state.model[0].weight]
    here = other.optimizer.state[other.model[0].weight]
    assert here["moment"].dtype == torch.float32
    assert here["counts"]["signs"].dtype == torch.int8
    assert torch.equal(here["moment"], there["moment"])
    assert type(here["counts"]["n"]) is np.int64
    assert other.optimizer.state["all"]["steps"] == 1
    assert other.optimizer.state["all"]["sum"].stride() == (1, 2)
    here["halves"][0].add_(1.0)
    assert torch.equal(here["whole"][: len(here["halves"][0])], here["halves"][0])
    assert isinstance(other.optimizer.param_groups[0]["lr"], torch.Tensor)


class Halving(torch.optim.SGD):
    """Its own load_state_dict loses precision, again and again."""

    def state_dict(self):
        state = super().state_dict()
        for values in state["state"].values():
            values["momentum_buffer"] = values["momentum_buffer"].to(self.dtype)
        return state

    dtype = torch.float32


def test_a_state_that_cannot_come_back_as_saved_is_refused_by_name(tmp_path):
    state, other = (make_state(lambda p: Halving(p, 0.1, momentum=0.9)) for _ in range(2))
    advance(state, 1)
    save(tmp_path, state)
    other.optimizer.dtype = torch.bfloat16
    with pytest.raises(CheckpointError, match=r"optim\.0\.momentum_buffer .* torch\.float32 there, torch\.bfloat16"):
        load(tmp_path, other)


def test_a_model_of_another_dtype_is_refused_by_name(tmp_path):
    state = make_state(fused_adamw)
    save(tmp_path, state)
    with pytest.raises(CheckpointError, match=r"model\.0\.weight .* torch\.float32 there, torch\.bfloat16 here"):
        load(tmp_path, make_state(fused_adamw, torch.bfloat16))


def test_what_was_on_the_device_is_not_taken_for_host_memory():
    there = Layout((2,), (1,), torch.float32, host=False)
    here = Layout((2,), (1,), torch.float32, host=True)
    assert there.difference(here) == "on the device there, in host memory here"
    assert there.difference(here, same_device=False) == ""


@pytest.mark.parametrize(
    ("tensor", "separate"),
    [
        (torch.zeros(3, 4).t(), True),
        (torch.zeros(10)[::3], True),
        (torch.zeros(()), True),
        (torch.zeros(3, 1).expand(3, 4), False),
        (torch.zeros(10).as_strided((3, 3), (2, 1)), False),
        (torch.zeros(2).to_sparse(), False),
    ],
)
def test_only_tensors_with_a_place_for_each_element_are_filled_in_place(tensor, separate):
    assert is_separate(tensor) is separate


def test_types_survive_a_state_dict(tmp_path):
    """weights_only reading refuses NumPy's types, deques and defaultdicts."""
    from collections import Counter, OrderedDict, defaultdict, deque

    value = {
        "scalar": np.float32(1.5),
        "word": np.int64(3),
        "flag": np.bool_(True),
        "array": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "when": np.datetime64("2026-01-01"),
        "deque": deque([1, 2], maxlen=4),
        "counter": Counter({3: 2}),
        "ordered": OrderedDict(b=1, a=2),
        "default": defaultdict(None, {"x": {1, 2}}),
        (1, "pair"): [(), None, b"bytes", frozenset({2})],
        "function": len,
    }
    path = tmp_path / "state.pt"
    torch.save(encode(value, "loader"), path)
    back = decode(torch.load(path, weights_only=True))
    assert back.pop("array").flags.f_contiguous
    del value["array"], value["function"]
    assert back == value
    assert {key: type(part) for key, part in back.items()} == {key: type(part) for key, part in value.items()}
    assert back["deque"].maxlen == 4


def test_what_cannot_be_saved_is_refused_when_it_would_be_saved():
    with pytest.raises(TaskError, match=r"the state of the loader holds a object at inner\.1"):
        encode({"inner": [0, object()]}, "loader")
