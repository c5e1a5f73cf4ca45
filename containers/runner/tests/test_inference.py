"""Evaluate, predict and export a trained model; the numbers are compared with the model's own."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import keeping
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
from devgw_runner import LossOut, Task, TrainConfig, run
from devgw_runner.checkpoint.export import read_weights
from devgw_runner.checkpoint.store import step_directory
from devgw_runner.cli import main
from devgw_runner.errors import ExportError
from devgw_runner.export_formats import Example, Forward, compare, triton_config
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import TensorDataset


@pytest.fixture
def trained(paths):
    """A tiny model after two epochs; its last evaluation is what `evaluate` must say again."""
    assert run(tiny.Tiny, ["--run-name", "tiny", "--epochs", "2"]) == 0
    return paths


def command(*words: str) -> int:
    return main([*map(str, words)])


def test_evaluate_says_what_the_trainings_own_evaluation_said(trained, capsys):
    capsys.readouterr()
    assert command("evaluate", tiny.__file__, "--checkpoint", trained.checkpoints, "-o", "json") == 0
    report = json.loads(capsys.readouterr().out)
    last = trained.records("val")[-1]
    assert report["version"] == 1
    assert (report["step"], report["samples"], report["split"]) == (16, 20, "val")
    assert report["metrics"]["loss"] == pytest.approx(last["loss"], rel=1e-6)
    assert report["metrics"]["accuracy"] == pytest.approx(last["metric_accuracy"], rel=1e-6)
    # Another batch size weighs the short last batch alike.
    assert command("evaluate", tiny.__file__, "--checkpoint", trained.checkpoints, "--batch-size", "7") == 0
    assert f"loss  {last['loss']:.6g}" in capsys.readouterr().out


def test_evaluate_uses_the_average_that_the_task_kept(paths, capsys):
    """The model to evaluate with is the task's choice, and what it kept comes out of the checkpoint."""
    assert run(keeping.Keeping, ["--run-name", "tiny", "--epochs", "2"]) == 0
    capsys.readouterr()
    assert command("evaluate", keeping.__file__, "--checkpoint", paths.checkpoints, "-o", "json") == 0
    said = json.loads(capsys.readouterr().out)["metrics"]["loss"]
    assert said == pytest.approx(paths.records("val")[-1]["loss"], rel=1e-6)


class Averaged(tiny.Tiny):
    """As docs/howto/keep-an-average.md has it."""

    def setup(self, ctx):
        self.average = AveragedModel(ctx.model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)

    def on_step_end(self, ctx):
        self.average.update_parameters(ctx.model)

    def evaluation_model(self, model):
        return self.average

    def state_dict(self):
        return {"average": self.average.state_dict()}

    def load_state_dict(self, state):
        self.average.load_state_dict(state["average"])


def test_the_exported_weights_are_those_that_were_evaluated(paths, tmp_path, capsys):
    """With the script: the average, by the model's names. Without it nobody can know: a note says what is there."""
    assert run(Averaged, ["--run-name", "tiny", "--epochs", "2"]) == 0
    average, own = tmp_path / "average.safetensors", tmp_path / "own.safetensors"
    source = ("--checkpoint", paths.checkpoints, "--output")
    capsys.readouterr()
    assert command("export", "test_inference:Averaged", *source, average) == 0
    assert "(AveragedModel)" in capsys.readouterr().out
    assert command("export", *source, own) == 0
    assert "the task keeps average beside it" in capsys.readouterr().err
    model = tiny.Tiny().model(tiny.TinyConfig())
    model.load_state_dict(load_file(own))
    model.load_state_dict(load_file(average))
    batch = torch.utils.data.default_collate(list(tiny.Points(20, 2, 0.0)))
    loss = tiny.Tiny().loss(model.eval(), batch).loss.item()
    assert loss == pytest.approx(paths.records("val")[-1]["loss"], rel=1e-5)


def test_the_weights_of_a_task_without_an_average_are_the_same_with_and_without_the_script(trained, tmp_path, capsys):
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    capsys.readouterr()
    assert command("export", "--checkpoint", trained.checkpoints, "--output", one) == 0
    assert command("export", tiny.__file__, "--checkpoint", trained.checkpoints, "--output", other) == 0
    assert "note" not in capsys.readouterr().err
    torch.testing.assert_close(load_file(one), load_file(other), rtol=0, atol=0)


def test_what_torch_thinks_of_one_process_is_not_shown(trained, finished):
    done = finished("export", tiny.__file__, "--checkpoint", trained.checkpoints, "--output", "x.safetensors")
    assert (done.returncode, done.stderr) == (0, "")


def own_outputs(paths) -> torch.Tensor:
    model = tiny.Tiny().model(tiny.TinyConfig())
    model.load_state_dict(read_weights(step_directory(paths.checkpoints, 16)))
    return model.eval()(torch.stack([point for point, _ in tiny.Points(20, 2, 0.0)]))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".jsonl"])
def test_predictions_are_the_models_outputs_in_the_datas_order(trained, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    line = ("predict", tiny.__file__, "--checkpoint", trained.checkpoints, "--split", "val", "--output", target)
    assert command(*line, "--batch-size", "7") == 0
    if suffix == ".safetensors":
        got = load_file(target)["prediction"]
    elif suffix == ".npz":
        got = torch.from_numpy(np.load(target)["prediction"])
    else:
        got = torch.tensor([json.loads(text)["prediction"] for text in target.read_text().splitlines()])
    torch.testing.assert_close(got, own_outputs(trained), rtol=1e-5, atol=1e-6)
    assert list(tmp_path.glob("*.tmp")) == []


@pytest.fixture
def torchs_log(monkeypatch):
    """Collect what torch tells users by its loggers, some of which have handlers of their own."""
    lines = []

    def collect(logger, record):
        if logger.name.startswith("torch") and record.levelno >= logging.WARNING:
            lines.append(record.getMessage())

    monkeypatch.setattr(logging.Logger, "callHandlers", collect)
    return lines


@pytest.mark.parametrize("form", ["torch", "onnx", "triton"])
def test_an_exported_model_computes_the_models_numbers_at_any_batch_size(trained, tmp_path, capsys, torchs_log, form):
    target = tmp_path / {"torch": "m.pt2", "onnx": "m.onnx", "triton": "flowers"}[form]
    line = ("export", tiny.__file__, "--checkpoint", trained.checkpoints, "--output", target, "--format", form)
    assert command(*line) == 0
    assert "any batch size; largest difference" in capsys.readouterr().out
    assert torchs_log == []  # such as that a file's name has not its format's suffix
    points = torch.stack([point for point, _ in tiny.Points(20, 2, 0.0)])
    if form == "torch":
        got = torch.export.load(target).module()(points)[0]
    else:
        file = target / "flowers" / "1" / "model.onnx" if form == "triton" else target
        onnx.checker.check_model(onnx.load(file))
        session = onnxruntime.InferenceSession(file.read_bytes())
        assert [node.name for node in session.get_inputs()] == ["input"]
        got = torch.from_numpy(session.run(["output"], {"input": points.numpy()})[0])
    torch.testing.assert_close(got, own_outputs(trained), rtol=1e-4, atol=1e-5)
    if form == "triton":
        config = (target / "flowers" / "config.pbtxt").read_text()
        assert 'name: "flowers"' in config
        assert re.search(r'input \[\s+\{\s+name: "input"\s+data_type: TYPE_FP32\s+dims: \[ 12 \]', config)
        assert re.search(r'output \[\s+\{\s+name: "output"\s+data_type: TYPE_FP32\s+dims: \[ 3 \]', config)
        assert "max_batch_size: 64" in config


class Words(Task):
    """Batches as Hugging Face's tokenizers make them, and a model called by keyword with a mapping for an answer."""

    class Config(TrainConfig):
        batch_size: int = 4
        compile: str = "off"

    config = Config

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, input_ids, attention_mask):
            mask = attention_mask.unsqueeze(2)
            pooled = (self.embed(input_ids) * mask).sum(1) / mask.sum(1)
            return {"logits": self.head(pooled), "pooled": pooled}

    class Data(TensorDataset):
        def collate(self, samples):
            ids, mask, labels = (torch.stack(part) for part in zip(*samples, strict=True))
            return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def model(self, cfg):
        return self.Net()

    def loss(self, model, batch):
        out = model(batch["input_ids"], batch["attention_mask"])
        return LossOut(nn.functional.cross_entropy(out["logits"], batch["labels"]), {})

    def data(self, cfg, split):
        generator = torch.Generator().manual_seed(2)
        ids = torch.randint(11, (12, 5), generator=generator)
        mask = (torch.arange(5) < torch.randint(1, 6, (12, 1), generator=generator)).float()
        return self.Data(ids, mask, torch.randint(3, (12,), generator=generator))


def test_a_model_called_by_keyword_is_exported_with_its_names(paths, tmp_path, capsys):
    assert run(Words, ["--run-name", "tiny", "--steps", "2"]) == 0
    target = tmp_path / "words.onnx"
    line = ("export", "test_inference:Words", "--checkpoint", paths.checkpoints, "--output", target, "--format", "onnx")
    assert command(*line) == 0
    session = onnxruntime.InferenceSession(target.read_bytes())
    assert {node.name for node in session.get_inputs()} == {"input_ids", "attention_mask"}
    assert [node.name for node in session.get_outputs()] == ["logits", "pooled"]
    predictions = tmp_path / "p.jsonl"
    line = ("predict", "test_inference:Words", "--checkpoint", paths.checkpoints, "--output", predictions)
    assert command(*line, "--split", "val") == 0
    rows = [json.loads(text) for text in predictions.read_text().splitlines()]
    assert len(rows) == 12
    assert {len(row["logits"]) for row in rows} == {3}


class Frozen(tiny.Tiny):
    """Its forward holds a number of the trace: what is exported computes something else each time."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(tiny.FEATURES, tiny.CLASSES)
            self.calls = 0

        def forward(self, points):
            self.calls += 1
            return self.head(points) * float(self.calls)

    def model(self, cfg):
        return self.Net()


def test_an_export_that_computes_something_else_is_refused_and_leaves_nothing(paths, tmp_path, capsys):
    assert run(Frozen, ["--run-name", "tiny", "--steps", "2"]) == 0
    target = tmp_path / "frozen.pt2"
    line = ("export", "test_inference:Frozen", "--checkpoint", paths.checkpoints, "--output", target)
    assert command(*line, "--format", "torch") == 22
    assert "differs by" in capsys.readouterr().err
    assert not target.exists()
    assert list(tmp_path.glob(".tmp-*")) == []


def test_a_difference_of_one_in_a_thousand_is_not_rounding():
    inputs = {"input": torch.randn(2, 3)}
    example = Example(Forward(nn.Linear(3, 2), (), 1), inputs, {"output": torch.zeros(2, 2)})
    right = lambda given: list(example.forward(*given))  # noqa: E731 - two short runners
    wrong = lambda given: [value * 1.001 for value in example.forward(*given)]  # noqa: E731 - two short runners
    assert compare(example, right, varying=True) == 0
    with pytest.raises(ExportError, match=r"differs by 0\.001"):
        compare(example, wrong, varying=True)
    with pytest.raises(ExportError, match="has shape"):
        compare(example, lambda given: [example.forward(*given)[0][:1]], varying=True)


def test_tritons_configuration_names_types_and_a_batch_of_scalars():
    example = Example(
        Forward(nn.Identity(), (), 1),
        {"ids": torch.zeros(2, 5, dtype=torch.long)},
        {"score": torch.zeros(2), "mask": torch.zeros(2, 5, dtype=torch.bool)},
    )
    text = triton_config("m", example, varying=True)
    assert re.search(r'"ids"\s+data_type: TYPE_INT64\s+dims: \[ 5 \]', text)
    assert re.search(r'"score"\s+data_type: TYPE_FP32\s+dims: \[ 1 \]\s+reshape: \{ shape: \[ \] \}', text)
    assert "TYPE_BOOL" in text
    fixed = triton_config("m", example, varying=False)
    assert "max_batch_size: 0" in fixed
    assert "dims: [ 2, 5 ]" in fixed


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (["evaluate", "SCRIPT", "--checkpoint", "CKPT", "--split", "test2"], 11, "no data for 'test2'"),
        (["evaluate", "SCRIPT", "--checkpoint", "nowhere"], 12, "no checkpoint at nowhere"),
        (["evaluate", "SCRIPT", "--checkpoint", "CKPT", "--width", "20"], 18, "of another model"),
        (["evaluate", "SCRIPT", "--checkpoint", "CKPT", "--wdith", "20"], 2, "unknown flag --wdith"),
        (["predict", "SCRIPT", "--checkpoint", "CKPT", "--output", "x.csv"], 2, "no known suffix"),
        (["predict", "SCRIPT", "--checkpoint", "CKPT", "--output", "no/x.npz", "--split", "val"], 13, "cannot write"),
        (["export", "--checkpoint", "CKPT", "--output", "x", "--format", "onnx"], 2, "needs the script"),
        (["export", "--checkpoint", "CKPT", "--output", "x", "--frob"], 2, "unrecognized arguments: --frob"),
    ],
)
def test_what_cannot_be_evaluated_or_exported_is_told(trained, capsys, line, code, message):
    class_with_no_test_split = "test_inference:OnlyVal"
    words = {"SCRIPT": class_with_no_test_split, "CKPT": str(trained.checkpoints)}
    assert main([words.get(word, word) for word in line]) == code
    assert message in capsys.readouterr().err
    assert not Path("x").exists()


class OnlyVal(tiny.Tiny):
    def data(self, cfg, split):
        return super().data(cfg, split) if split in {"train", "val"} else None


def test_what_export_needs_is_named_where_it_is_not_installed(trained):
    """A process that cannot import onnxruntime, as in a lean install."""
    code = (
        "import sys; sys.modules['onnxruntime'] = None; import importlib.util as u; f = u.find_spec; "
        "u.find_spec = lambda n, *a: None if n == 'onnxruntime' else f(n, *a); "
        "from devgw_runner.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    line = ["export", tiny.__file__, "--checkpoint", str(trained.checkpoints), "--output", "x", "--format", "onnx"]
    done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "pip install 'devgw-runner[export]'" in done.stderr
