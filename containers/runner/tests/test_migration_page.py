"""The page for those who come from Lightning or Accelerate: each example is Python, and ours trains as it stands."""

import ast
import re
from pathlib import Path

import pytest
import torch
from devgw_runner import run
from devgw_runner.config import TrainConfig
from devgw_runner.config_sources import flag_of
from devgw_runner.task import Task
from torch import nn
from torch.utils.data import TensorDataset

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "migrate-a-training.md").read_text(encoding="utf-8")
EXAMPLES = dict(
    re.findall(r"^## (Lightning|Accelerate|Here)\n\n```python\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE)
)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))


def images(split: str) -> TensorDataset:
    generator = torch.Generator().manual_seed(1 if split == "train" else 2)
    labels = torch.randint(2, (64,), generator=generator)
    return TensorDataset(torch.randn(64, 3, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1), labels)


@pytest.mark.parametrize("name", ["Lightning", "Accelerate", "Here"])
def test_each_example_is_python(name):
    ast.parse(EXAMPLES[name])


def test_our_example_trains_with_the_flags_of_the_page(paths):
    names = {"network": network, "images": images, "__name__": "example"}
    exec(compile(EXAMPLES["Here"], "example", "exec"), names)  # noqa: S102 - the page's own text
    line = next(line for line in PAGE.splitlines() if line.startswith("    devgw-run train.py")).split()[2:]
    flags = [word if word != "10" else "2" for word in line]
    assert run(names["Images"], ["--run-name", "tiny", *flags, "--batch-size", "16", "--compile", "off"]) == 0
    assert "metric_accuracy" in paths.records("val")[-1]


def test_each_of_our_words_in_the_table_exists():
    ours = " ".join(row.split("|")[3] for row in PAGE.splitlines() if row.startswith("| ") and row.count("|") == 4)
    flags = {flag_of(name) for name in TrainConfig.model_fields}
    for flag in re.findall(r"--[a-z-]+", ours):
        assert flag in flags or flag == "--format", flag
    for method in re.findall(r"`(?:Task\.)?((?:on_)?[a-z_]+)`", ours):
        assert hasattr(Task, method) or method in {"evaluate", "predict"}, method
