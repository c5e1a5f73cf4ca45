"""The four ways to start a task, and what the API promises."""

import os
import subprocess
import sys
from pathlib import Path

import devgw_runner
import pytest
import tiny
from devgw_runner import TrainConfig, run
from devgw_runner.cli import main
from devgw_runner.entry import RunStoppedError
from devgw_runner.errors import RunnerError
from devgw_runner.script import find_task


def test_the_package_exports_four_names():
    assert sorted(devgw_runner.__all__) == ["LossOut", "Task", "TrainConfig", "run"]
    for name in devgw_runner.__all__:
        assert getattr(devgw_runner, name).__name__ == name


def test_a_notebook_calls_run_with_a_config_and_gets_exceptions(paths):
    assert run(tiny.Tiny, tiny.TinyConfig(run_name="tiny", steps=2)) == 0
    assert paths.steps() == [2]
    with pytest.raises(RunnerError) as caught:
        run(tiny.Tiny, tiny.TinyConfig(run_name="tiny", steps=4, width=20))
    assert caught.value.exit_code == 18
    assert issubclass(RunStoppedError, RunnerError)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        [str(tiny.__file__)],  # python train.py
        ["-m", "devgw_runner", str(tiny.__file__)],  # devgw-run train.py
        ["-m", "devgw_runner", "tiny:Tiny"],  # devgw-run package.module:Task
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", str(tiny.__file__)],  # torchrun
    ],
    ids=["python", "devgw-run", "module", "torchrun"],
)
def test_a_script_starts_in_every_way(line, paths):
    environment = {**os.environ, "PYTHONPATH": str(Path(tiny.__file__).parent)}
    done = subprocess.run(
        [sys.executable, *line, "--steps", "2", "--run-name", "tiny"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "finished at step 2" in done.stdout
    assert paths.steps() == [2]


def test_explain_prints_the_plan_and_touches_nothing(capsys, tmp_path):
    assert run(tiny.Tiny, ["--explain", "--run-name", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "precision=fp32" in out
    assert "asked for" in out
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "logs").exists()


def test_help_lists_own_settings(capsys):
    assert run(tiny.Tiny, ["--help"]) == 0
    out = capsys.readouterr().out
    assert "--width" in out
    assert "--no-deterministic" in out


def test_a_script_that_never_calls_run_is_pointed_to_wrap(capsys, tmp_path):
    (tmp_path / "plain.py").write_text("x = 1\n")
    assert main(["plain.py", "--device", "cpu"]) == 10
    assert "--wrap" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (["nowhere.py"], 2, "there is no script or command nowhere.py"),
        (["doctr"], 2, "there is no script or command doctr"),
        (["--nproc", "many", "x.py"], 2, "--nproc many makes no sense"),
        (["--frobnicate", "x.py"], 2, "unknown flag --frobnicate"),
        (["--wrap", "--"], 2, "there is no script to run"),
        (["nowhere:Task"], 2, "there is no Task in nowhere"),
        (["logs", "--frob"], 2, "unrecognized arguments: --frob"),
        (["logs"], 2, "there are no jobs"),
        (["export", "--checkpoint", "nowhere", "--output", "x"], 12, "there is no checkpoint at nowhere"),
    ],
)
def test_a_wrong_command_line_is_told(capsys, line, code, message):
    assert main(line) == code
    assert message in capsys.readouterr().err


def test_a_task_is_found_without_training_it(paths):
    assert find_task(tiny.__file__).__name__ == "Tiny"
    assert not paths.logs.exists()


def test_config_is_a_pydantic_model_with_a_schema():
    schema = TrainConfig.model_json_schema()
    assert schema["additionalProperties"] is False
    assert all("description" in field for field in schema["properties"].values())
