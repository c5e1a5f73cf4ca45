"""Where settings come from, which wins, and how a wrong one is told."""

from pathlib import Path

import pytest
from devgw_runner.config import TrainConfig
from devgw_runner.config_sources import build_parser, flag_of, read_config
from devgw_runner.errors import UsageError
from pydantic import ValidationError


class Own(TrainConfig):
    width: int = 8
    fancy: bool = False


def test_every_field_becomes_a_flag():
    """The command line is generated: a new setting needs no second place."""
    options = {option for action in build_parser(Own)._actions for option in action.option_strings}
    assert {flag_of(name) for name in Own.model_fields} <= options
    assert {"--width", "--fancy", "--no-fancy", "--config"} <= options


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 2\nbatch-size: 2\nseed: 2\n")
    config = read_config(
        TrainConfig,
        ["--config", str(file), "--epochs", "4"],
        {"DEVGW_TRAIN_EPOCHS": "3", "DEVGW_TRAIN_BATCH_SIZE": "3"},
    )
    assert (config.epochs, config.batch_size, config.seed, config.log_every) == (4, 3, 2, 10)


def test_auto_and_numbers_are_both_read_from_text():
    config = read_config(TrainConfig, ["--batch-size", "auto", "--workers", "0"], {})
    assert (config.batch_size, config.workers) == ("auto", 0)


def test_a_frozen_config_cannot_be_changed_by_a_task():
    with pytest.raises(ValidationError):
        TrainConfig().epochs = 3  # type: ignore[misc]  # that it is refused is the point


BAD = [
    # flags
    (["--batchsize", "3"], {}, "", "unknown flag --batchsize", "did you mean --batch-size"),
    (["--frobnicate"], {}, "", "unknown flag --frobnicate", "--help"),
    (["--epochs", "0"], {}, "", "--epochs: '0' should be greater than or equal to 1", ""),
    (["--batch-size", "many"], {}, "", "--batch-size: 'many' should be 'auto' or", ""),
    (["--precision", "fp4"], {}, "", "--precision: 'fp4' should be 'auto'", ""),
    (["--batch-size", "4", "--micro-batch", "8"], {}, "", "--micro-batch is larger than --batch-size", ""),
    (["--run-name", "../x"], {}, "", "--run-name:", ""),
    # environment
    (
        [],
        {"DEVGW_TRAIN_EPOCH": "3"},
        "",
        "unknown setting DEVGW_TRAIN_EPOCH",
        "did you mean DEVGW_TRAIN_EPOCHS",
    ),
    ([], {"DEVGW_TRAIN_SEED": "x"}, "", "DEVGW_TRAIN_SEED: 'x'", ""),
    # file
    ([], {}, "epoch: 3\n", "unknown setting epoch in", "did you mean epochs"),
    ([], {}, "epochs: x\n", "epochs: 'x'", ""),
    ([], {}, "- 1\n", "holds a list", ""),
    ([], {}, "a: [\n", "is not YAML", ""),
]


@pytest.mark.parametrize(("flags", "environment", "yaml", "message", "hint"), BAD)
def test_a_wrong_setting_is_named_with_its_source(tmp_path, flags, environment, yaml, message, hint):
    if yaml:
        file = tmp_path / "run.yaml"
        file.write_text(yaml)
        flags = ["--config", str(file), *flags]
    with pytest.raises(UsageError) as caught:
        read_config(TrainConfig, flags, environment)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_a_missing_config_file_is_a_usage_error():
    with pytest.raises(UsageError, match=r"cannot read nowhere\.yaml: no such file"):
        read_config(TrainConfig, ["--config", "nowhere.yaml"], {})
