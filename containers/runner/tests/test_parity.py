"""The parity gate sees a wrong backward pass, and what the compiler left to Python is counted and said."""

import json
from itertools import pairwise

import pytest
import torch
from devgw_runner import Task, TrainConfig, ladder, run
from devgw_runner.compiler_counts import CompiledShapes
from devgw_runner.ladder import Rung, Trial, climb
from devgw_runner.parity import GRADIENT_DRAWS, Draw, ParityError, check_parity, take_reference
from devgw_runner.precision import autocast_for
from devgw_runner.task import LossStep
from torch import nn
from torch.utils.data import TensorDataset

QUICK = {"run_name": "tiny", "steps": 3, "batch_size": 8, "log_every": 1, "compile": "default"}


@pytest.fixture(autouse=True)
def _traced_only(monkeypatch, request):
    """Trace with Dynamo and AOTAutograd, without generating code: what is tested here lies before that."""
    if "slow" not in request.keywords:

        def compile_targets(_rung, trial):
            for module in trial.compile_targets:
                module.compile(backend="aot_eager", dynamic=False)

        monkeypatch.setattr(ladder, "_compile_targets", compile_targets)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Regression(Task):
    """A task whose loss can be replaced by one that goes wrong when it is compiled."""

    dropout = 0.0

    def model(self, cfg):
        layers = [nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(self.dropout), nn.Linear(32, 1)]
        return nn.Sequential(*layers)

    def loss(self, model, batch):
        return nn.functional.mse_loss(model(batch[0]), batch[1]) + self.more(model, batch)

    def more(self, model, batch):
        return 0.0

    def data(self, cfg, split):
        inputs = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
        return TensorDataset(inputs, inputs.sum(1, keepdim=True)) if split == "train" else None


def nothing(value):
    """A term of value 0 whose gradient is not."""
    return value - value.detach()


class WrongEverywhere(Regression):
    def more(self, model, batch):
        return nothing(sum((p**2).sum() for p in model.parameters())) if torch.compiler.is_compiling() else 0.0


class WrongInOneBias(Regression):
    def more(self, model, batch):
        return nothing(model[4].bias.sum()) if torch.compiler.is_compiling() else 0.0


class Doubled(Regression):
    def loss(self, model, batch):
        loss = super().loss(model, batch)
        return loss + nothing(loss) if torch.compiler.is_compiling() else loss


class Vanishing(Regression):
    """The first layer learns nothing."""

    def loss(self, model, batch):
        inputs, targets = batch
        hidden = model[:3](inputs)
        hidden = hidden.detach() if torch.compiler.is_compiling() else hidden
        return nn.functional.mse_loss(model[3:](hidden), targets)


def trial(task: Task, precision: str = "fp32", model: nn.Module | None = None, batch=None) -> Trial:
    torch.manual_seed(0)
    step = LossStep(task, model or task.model(None))
    batch = batch or (torch.randn(32, 6), torch.randn(32, 1))
    autocast = autocast_for(precision, torch.device("cpu"), sharded=False)
    return Trial(step, batch, precision, autocast, "default", 300.0, (step,))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("wrong", [WrongEverywhere, WrongInOneBias, Doubled, Vanishing])
def test_a_right_loss_with_a_wrong_gradient_is_left(wrong, precision, dropout):
    task = type(wrong.__name__, (wrong,), {"dropout": dropout})()
    result = climb(trial(task, precision), lambda succeeded: succeeded)
    assert result.rung is Rung.EAGER
    assert {fall.cause for fall in result.falls} == {"ParityError"}
    assert "the gradient of model." in result.falls[0].line


def test_a_step_that_fell_computes_what_eager_computes():
    """It is not only called eager: nothing of the wrong rung stays on it."""
    tried = trial(WrongEverywhere())
    expected = ladder.draw(tried, tried.autocast).gradients
    assert climb(tried, lambda succeeded: succeeded).rung is Rung.EAGER
    got = ladder.draw(tried, tried.autocast).gradients
    for name, gradient in expected.items():
        assert torch.equal(got[name], gradient), name


class Depth(nn.Module):
    """Blocks that are left out at random, whole."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x) * torch.bernoulli(torch.full((), 0.7))
        return self.head(x)


class Convolutions(nn.Module):
    """Biases before a batch norm have no gradient but rounding; one weight is used twice."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.three = nn.Conv2d(8, 8, 3, padding=1)
        self.three.weight = self.two.weight
        self.unused = nn.Parameter(torch.zeros(3))
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        x = self.norm(self.one(x)).relu()
        return self.head(self.three(self.two(x).relu()).mean((2, 3)))


IMAGES = (torch.randn(16, 3, 8, 8).to(memory_format=torch.channels_last), torch.randn(16, 1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (lambda: Regression().model(None), None),
        (lambda: nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 1)), None),
        (Depth, None),
        (lambda: Convolutions().to(memory_format=torch.channels_last), IMAGES),
    ],
    ids=["batch norm", "dropout", "stochastic depth", "convolutions"],
)
def test_a_sound_model_stays_compiled(model, batch, precision):
    result = climb(trial(Regression(), precision, model(), batch), lambda succeeded: succeeded)
    assert result.falls == []
    assert result.rung is Rung.COMPILED


@pytest.mark.slow
def test_generated_code_passes_the_gate_and_wrong_code_does_not():
    """With the real backend, once each."""
    sound = climb(trial(Regression(), model=Convolutions(), batch=IMAGES), lambda succeeded: succeeded)
    assert (sound.rung, sound.falls) == (Rung.COMPILED, [])
    torch._dynamo.reset()
    assert climb(trial(WrongInOneBias()), lambda succeeded: succeeded).rung is Rung.EAGER


def test_chance_alone_rejects_no_gradient():
    """Two thousand models whose gradients are noise around a mean: none is rejected, and a wrong one always is."""
    random = torch.Generator().manual_seed(3)
    means = [torch.randn(8, generator=random) for _ in range(20)]

    def draw(factor: float = 1.0) -> Draw:
        noisy = {str(i): factor * mean + 0.5 * torch.randn(8, generator=random) for i, mean in enumerate(means)}
        return Draw(1.0, noisy)

    for _ in range(100):  # twenty tensors each
        reference = take_reference([1.0, 1.1, 0.9], draw, draw, "fp32")
        assert len(reference.draws) == GRADIENT_DRAWS
        check_parity(draw, reference, "fp32")
        with pytest.raises(ParityError, match="the gradient of"):
            check_parity(lambda: draw(-1.0), reference, "fp32")


def test_a_gradient_that_is_not_a_number_is_rejected():
    good, bad = Draw(1.0, {"weight": torch.ones(3)}), Draw(1.0, {"weight": torch.full((3,), float("nan"))})
    with pytest.raises(ParityError):
        check_parity(lambda: bad, take_reference([1.0, 1.0], lambda: good, lambda: good, "fp32"), "fp32")


@pytest.mark.parametrize("losses", [[1.0, 1.0], [1.0, 1.1, 0.9]], ids=["exact", "with dropout"])
def test_a_loss_that_is_not_a_number_is_rejected(losses):
    good, bad = Draw(1.0, {"weight": torch.ones(3)}), Draw(float("nan"), {"weight": torch.ones(3)})
    with pytest.raises(ParityError, match="loss nan differs"):
        check_parity(lambda: bad, take_reference(losses, lambda: good, lambda: good, "fp32"), "fp32")


class Reading(Regression):
    """Reads a value inside a loop that cannot be cut: the compiler leaves the whole step to Python."""

    def model(self, cfg):
        return nn.Linear(6, 1)

    def loss(self, model, batch):
        scale = 1.0
        for _ in range(2):
            with torch.no_grad():
                scale += 0.0 * batch[0].sum().item()
        return nn.functional.mse_loss(model(batch[0]), batch[1]) * scale


class Raising(Regression):
    """Refuses to be traced; the compiler swallows that and lets Python run the step."""

    def model(self, cfg):
        return nn.Linear(6, 1)

    def loss(self, model, batch):
        if torch.compiler.is_compiling():
            raise RuntimeError("not to be compiled")
        return nn.functional.mse_loss(model(batch[0]), batch[1])


class Disabled(Regression):
    @torch.compiler.disable
    def loss(self, model, batch):
        return super().loss(model, batch)


class Broken(Regression):
    """A print in the middle: two graphs."""

    def loss(self, model, batch):
        hidden = model[:3](batch[0])
        print(end="")
        return nn.functional.mse_loss(model[3:](hidden), batch[1])


@pytest.mark.parametrize("task", [Reading, Raising, Disabled])
def test_a_rung_without_a_graph_is_no_rung(paths, task):
    """Nothing is raised, and nothing is compiled: "on rung compiled" would be a lie."""
    assert run(task, TrainConfig(**QUICK)) == 0
    done = paths.events("warm-up-done")[0]
    assert (done["rung"], done["graphs"]) == ("eager", 0)
    assert "on rung eager" in done["text"]
    falls = paths.events("fall")
    assert {fall["cause"] for fall in falls} == {"NoGraphError"}
    assert all("nothing was compiled: " in fall["line"] for fall in falls)
    assert paths.records()[-1]["graphs"] == 0
    plan = json.loads((paths.logs / "plan.json").read_text())
    assert plan["warm_up"]["rung"] == "eager"
    assert plan["warm_up"]["falls"][0]["cause"] == "NoGraphError"


def test_graphs_and_breaks_are_counted_in_events_plan_and_metrics(paths):
    assert run(Broken, TrainConfig(**QUICK)) == 0
    done = paths.events("warm-up-done")[0]
    assert done["rung"] == "compiled"
    assert (done["graphs"], done["graph_breaks"]) == (2, 2)  # the compiler counts every function that is cut
    assert "with 2 graphs, 2 breaks: Failed to trace builtin operator" in done["text"]
    plan = json.loads((paths.logs / "plan.json").read_text())
    assert plan["warm_up"]["graph_break_reasons"][0]["count"] == 2
    assert plan["choices"]["compile"]["value"] == "default"
    assert [paths.records()[-1][name] for name in ("graphs", "graph_breaks")] == [2, 2]
    prometheus = (paths.logs / "metrics.prom").read_text()
    assert 'devgw_train_graphs{run="tiny"} 2.0' in prometheus
    assert 'devgw_train_graph_breaks{run="tiny"} 2.0' in prometheus


def test_a_second_run_in_one_process_counts_its_own_graphs(paths, tmp_path):
    """The compiler's counters go on; a notebook's second run must not inherit the first one's."""
    from conftest import RunPaths

    assert run(Broken, TrainConfig(**QUICK)) == 0
    assert run(Regression, TrainConfig(**{**QUICK, "run_name": "second"})) == 0
    done = RunPaths(tmp_path, "second").events("warm-up-done")[0]
    assert (done["graphs"], done["graph_breaks"]) == (1, 0)
    assert "with 1 graph, no break" in done["text"]


class Odd(Regression):
    """Batches of which every third is smaller."""

    def data(self, cfg, split):
        if split == "val":
            return None
        return [(torch.randn(size, 6), torch.randn(size, 1)) for size in (8, 8, 5, 8, 8, 3)]


class Endless:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        yield from self.batches


def test_shapes_that_ran_eager_are_counted_and_said_once(paths):
    task = type(
        "Odd",
        (Odd,),
        {"data": lambda self, cfg, split: None if split == "val" else Endless(Odd.data(self, cfg, split))},
    )
    assert run(task, TrainConfig(**{**QUICK, "steps": 12})) == 0
    said = [event["text"] for event in paths.events("eager-shape")]
    assert said == [f"batches of ({n}, 6), ({n}, 1) run eager: that shape was not compiled" for n in (5, 3)]
    counts = [record["eager_shape_parts"] for record in paths.records()]
    assert counts[-1] == 4
    assert all(later >= earlier for earlier, later in pairwise(counts))
    assert paths.records()[-1]["recompiles"] == 0


def test_a_shape_counts_as_eager_only_after_compiling_has_ended():
    shapes = CompiledShapes()
    assert shapes.note(torch.zeros(8, 2)) is None
    shapes.is_open = False
    assert shapes.note(torch.zeros(8, 2)) is None
    assert shapes.note({"x": torch.zeros(5, 2), "y": torch.zeros(5)}) == "(5, 2), (5,)"
    assert shapes.note({"x": torch.zeros(5, 2), "y": torch.zeros(5)}) is None
    assert shapes.eager_parts == 2
    assert shapes.note(torch.zeros(8, 2, dtype=torch.bfloat16)) == "(8, 2)"
