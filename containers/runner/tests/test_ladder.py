"""The ladder: compiled, aot_eager, eager; every fall has a cause, and a trial leaves no trace."""

import time

import pytest
import torch
from devgw_runner import Task, run
from devgw_runner.ladder import Rung, Trial, climb
from devgw_runner.parity import STOCHASTIC_DRAWS, ParityError, check_loss
from devgw_runner.precision import autocast_for, scaler_for
from devgw_runner.task import LossStep
from devgw_runner.time_limit import CompileTimeoutError, time_limit
from tiny import Tiny, TinyConfig
from torch import nn

BATCH = (torch.randn(8, 12), torch.randint(3, (8,)))


class Plain(Task):
    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


class Cheating(Plain):
    """Computes something else when compiled: what a miscompilation looks like."""

    def loss(self, model, batch):
        return super().loss(model, batch) + (1.0 if torch.compiler.is_compiling() else 0.0)


def trial(task: Task, model: nn.Module, **changes) -> Trial:
    step = LossStep(task, model)
    values = {
        "step": step,
        "batch": BATCH,
        "precision": "fp32",
        "autocast": autocast_for("fp32", torch.device("cpu"), sharded=False),
        "mode": "default",
        "timeout_seconds": 300.0,
        "compile_targets": (step,),
    }
    return Trial(**{**values, **changes})


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


@pytest.fixture(autouse=True)
def _cache(shared_cache, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(shared_cache / "inductor"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_good_model_stays_compiled_and_warm_up_leaves_no_trace():
    """Parameters, statistics, gradients and random state are as before; state-dict keys stay clean."""
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    randomness = torch.get_rng_state()
    result = climb(trial(Plain(), model), lambda succeeded: succeeded)
    assert result.rung is Rung.COMPILED
    assert result.falls == []
    assert result.seconds > 0
    assert model.state_dict().keys() == before.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), randomness)


@pytest.mark.slow
def test_a_compiler_that_fails_is_left_for_aot_eager_with_the_cause(finished, paths, tiny_script, tmp_path):
    """An image without a C++ compiler, pytorch/pytorch#170235. In its own process: torch remembers."""
    cold = {"CXX": "/nonexistent/c++", "DEVGW_TRAIN_CACHE_DIR": str(tmp_path / "cold")}
    done = finished(tiny_script, "--steps", "2", "--compile", "default", **cold)
    assert done.returncode == 0, done.stderr
    assert [fall["rung"] for fall in paths.events("fall")] == ["compiled"]
    assert "InvalidCxxCompiler" in done.stdout
    assert paths.events("warm-up-done")[0]["rung"] == "aot_eager"


def test_a_rung_that_computes_another_loss_is_left():
    """The parity gate: numbers that differ are never trained on."""
    exact = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))
    result = climb(trial(Cheating(), exact), lambda succeeded: succeeded)
    assert result.rung is Rung.EAGER
    assert {fall.cause for fall in result.falls} == {"ParityError"}
    assert "differs from the eager" in result.falls[0].line


def test_dropout_alone_rejects_no_rung_and_hides_no_other_loss():
    """The gate knows of the eager losses' spread only what sixteen draws show."""
    draws = torch.Generator().manual_seed(1)
    losses = 1.1 + 0.05 * torch.randn(3000, STOCHASTIC_DRAWS + 1, generator=draws, dtype=torch.float64)
    for reference, compiled in zip(losses[:, 1:].tolist(), losses[:, 0].tolist(), strict=True):
        check_loss(compiled, reference, "fp32")
        with pytest.raises(ParityError):
            check_loss(compiled + 1.0, reference, "fp32")


def test_a_rung_that_takes_too_long_is_left():
    result = climb(trial(Plain(), network(), timeout_seconds=0.01), lambda succeeded: succeeded)
    assert result.rung is Rung.EAGER
    assert [fall.cause for fall in result.falls] == ["CompileTimeoutError", "CompileTimeoutError"]
    assert all(fall.seconds < 30 for fall in result.falls)


def test_all_processes_fall_together():
    """One process that failed takes the others down a rung: they must run the same code."""
    result = climb(trial(Plain(), network(), mode="default"), lambda _: False)
    assert result.rung is Rung.EAGER
    assert result.falls[0].cause == "OtherProcess"


def test_out_of_memory_is_no_reason_to_fall():
    class Hungry(Plain):
        def loss(self, model, batch):
            if torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().loss(model, batch)

    with pytest.raises(torch.OutOfMemoryError):
        climb(trial(Hungry(), network()), lambda succeeded: succeeded)


@pytest.mark.slow
def test_an_odd_last_batch_runs_eager_without_a_recompilation(paths):
    """A partial batch costs one eager step, not minutes: 20 samples in batches of 8 leave 4."""
    config = TinyConfig(
        run_name="tiny",
        samples=20,
        batch_size=8,
        epochs=3,
        compile="default",
        last_batch="eager",
        log_every=1,
    )
    run(Tiny, config)
    assert paths.events("warm-up-done")[0]["rung"] == "compiled"
    assert len(paths.records()) == 9
    assert paths.records()[-1]["recompiles"] == 0
    assert paths.records()[-1]["compile_seconds"] > 0


@pytest.mark.slow
def test_a_fall_is_recorded_where_the_user_looks(paths, capsys):
    config = TinyConfig(run_name="tiny", steps=2, compile="default", compile_timeout_seconds=0.01)
    run(Tiny, config)
    falls = paths.events("fall")
    assert [fall["rung"] for fall in falls] == ["compiled", "aot_eager"]
    assert all(fall["cause"] == "CompileTimeoutError" for fall in falls)
    assert "fell from compiled: CompileTimeoutError: took longer than" in capsys.readouterr().out


def test_autocast_computes_in_bf16_and_the_scaler_rests():
    with autocast_for("bf16", torch.device("cpu"), sharded=False)():
        assert nn.Linear(4, 4)(torch.randn(2, 4)).dtype is torch.bfloat16
    with autocast_for("bf16", torch.device("cpu"), sharded=True)():
        assert nn.Linear(4, 4)(torch.randn(2, 4)).dtype is torch.float32
    assert not scaler_for("bf16", torch.device("cpu")).is_enabled()


class Slow:
    """Takes long to go away; what is raised in a destructor, Python only prints."""

    def __del__(self):
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_limit_that_runs_out_inside_a_destructor_is_not_lost():
    """A rung was kept although it had taken too long."""
    with pytest.raises(CompileTimeoutError), time_limit(0.05):
        Slow()
