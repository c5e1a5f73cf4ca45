"""Experiment trackers: the same run after a resume, secrets from a file and nowhere else, and no run lost to one."""

import json
import os
import sys
import types
from pathlib import Path

import pytest
import tiny
from devgw_runner import run
from devgw_runner.errors import UsageError
from devgw_runner.metrics import loggers
from devgw_runner.metrics.loggers import TrackedRun, read_secrets
from devgw_runner.metrics.record import Record

SECRET = "wandb-key-9f8e7d6c"


def train(task, *flags: str) -> int:
    return run(task, ["--run-name", "tiny", "--log-every", "4", *flags])


class Listing:
    """A logger of the task's own: it lists what it gets."""

    written: list = []  # noqa: RUF012 - shared on purpose: the test reads it

    def write(self, record: Record) -> None:
        self.written.append((record.kind, record.step, record.loss))

    def close(self) -> None:
        self.written.append("closed")


class WithOwn(tiny.Tiny):
    def loggers(self, cfg):
        return [Listing()]


def test_a_logger_of_the_tasks_own_gets_every_record(paths):
    Listing.written.clear()
    assert train(WithOwn, "--steps", "8") == 0
    expected = [("train", 4), ("train", 8), ("val", 8)]
    assert [entry[:2] for entry in Listing.written[:-1]] == expected
    assert Listing.written[0][2] == paths.records()[0]["loss"]
    assert Listing.written[-1] == "closed"


class Failing(Listing):
    def write(self, record):
        raise ConnectionError("the tracker's server is away\nwith a second line")


class WithFailing(tiny.Tiny):
    def loggers(self, cfg):
        return [Failing()]


def test_a_logger_that_fails_is_said_once_and_the_run_goes_on(paths):
    assert train(WithFailing, "--steps", "12") == 0
    assert paths.steps()[-1] == 12
    lost = paths.events("logger-lost")
    assert [event["text"] for event in lost] == [
        "logger Failing failed and is left: ConnectionError: the tracker's server is away"
    ]


@pytest.fixture
def mlflow_store(tmp_path, monkeypatch):
    """A tracker in a module of its own name, with MLflow's client calls: what is sent, by run."""
    runs: dict[str, dict] = {}

    class Client:
        def __init__(self, tracking_uri):
            self.uri = tracking_uri

        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return name

        def create_run(self, experiment, run_name):
            runs[f"id{len(runs)}"] = {
                "experiment": experiment,
                "name": run_name,
                "params": {},
                "points": [],
                "uri": self.uri,
            }
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=f"id{len(runs) - 1}"))

        def update_run(self, identity, status):
            runs[identity]["status"] = status

        def log_param(self, identity, name, value):
            runs[identity]["params"][name] = value

        def log_batch(self, identity, metrics):
            runs[identity]["points"] += [(m.key, m.value, m.step) for m in metrics]

        def set_terminated(self, identity):
            runs[identity]["status"] = "FINISHED"

    metric = lambda key, value, timestamp, step: types.SimpleNamespace(key=key, value=value, step=step)  # noqa: E731 - one line
    for name, content in {
        "mlflow": {},
        "mlflow.tracking": {"MlflowClient": Client},
        "mlflow.entities": {"Metric": metric},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return runs


def test_a_resumed_run_goes_on_in_the_same_run_of_the_tracker(paths, mlflow_store):
    for steps in ("4", "8"):
        assert train(tiny.Tiny, "--steps", steps, "--logger", "mlflow", "--logger-project", "flowers") == 0
    assert list(mlflow_store) == ["id0"]
    seen = mlflow_store["id0"]
    assert (seen["experiment"], seen["name"], seen["status"]) == ("flowers", "tiny", "FINISHED")
    losses = [(step, value) for name, value, step in seen["points"] if name == "train/loss"]
    assert losses == [(record["step"], record["loss"]) for record in paths.records()]
    assert seen["params"]["learning_rate"] == "0.001"
    assert seen["uri"] == f"sqlite:///{paths.logs / 'mlflow.db'}"


class KeyConfig(tiny.TinyConfig):
    hub_token: str = "none"


class WithKey(tiny.Tiny):
    config = KeyConfig


def test_secrets_come_from_a_file_and_stand_in_no_other(paths, tmp_path, mlflow_store, monkeypatch):
    """Not in plan.json, the events, the metrics, the tracker's parameters or a checkpoint."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "before")
    file = tmp_path / "keys"
    file.write_text(f"# the team's\nWANDB_API_KEY='{SECRET}'\n\nMLFLOW_TRACKING_TOKEN={SECRET}2\n")
    file.chmod(0o600)
    flags = ("--logger", "mlflow", "--logger-secrets", str(file), "--hub-token", SECRET)
    assert train(WithKey, "--steps", "4", *flags) == 0
    assert os.environ.pop("WANDB_API_KEY") == SECRET
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == f"{SECRET}2"
    assert mlflow_store["id0"]["params"]["hub_token"] == "(hidden)"
    assert SECRET not in json.dumps(mlflow_store["id0"]["params"])
    for path in [*paths.logs.rglob("*"), *paths.checkpoints.rglob("*")]:
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (f"WANDB_API_KEY={SECRET}\n", 0o640, "others can read the secrets"),
        (f"WANDB_API_KEY={SECRET}\n", 0o604, "others can read the secrets"),
        (f"{SECRET}\n", 0o600, "line 1 of"),
        (f"\nPATH={SECRET}\n", 0o600, "line 2 of"),
        (None, 0o600, "cannot read the secrets"),
    ],
)
def test_secrets_that_cannot_be_taken_are_told_without_the_secret(tmp_path, content, mode, message):
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    with pytest.raises(UsageError, match=message) as caught:
        read_secrets(file)
    assert SECRET not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--logger", "wandbb"], "there is no logger wandbb"),
        (["--logger", "wandb,comet"], "there is no logger comet"),
        (["--logger", "aim"], "pip install 'devgw-runner[aim]'"),
        (["--logger-secrets", "nowhere"], "cannot read the secrets in nowhere"),
    ],
)
def test_a_logger_that_cannot_be_is_told_before_the_first_step(paths, capsys, monkeypatch, flags, message):
    monkeypatch.setitem(sys.modules, "aim", None)
    assert train(tiny.Tiny, "--steps", "4", *flags) == 2
    assert message in capsys.readouterr().err
    assert paths.records() == []


def test_a_tracker_that_cannot_start_is_left_and_the_others_are_kept(tmp_path, monkeypatch):
    def broken(described: TrackedRun):
        raise TimeoutError("no answer")

    class Fine(Listing):
        identity = "kept"

        def __init__(self, described):
            self.described = described

    monkeypatch.setattr(loggers, "TRACKERS", {"broken": broken, "fine": Fine})
    said: list[str] = []
    described = TrackedRun("run", "project", tmp_path, {})
    opened = loggers.open_trackers(["broken", "fine"], described, said.append)
    assert [guarded.name for guarded in opened] == ["fine"]
    assert said == ["logger broken cannot start and is left: TimeoutError: no answer"]
    again = loggers.open_trackers(["fine"], described, said.append)
    assert again[0].logger.described.identity == "kept"
    assert Path(tmp_path / "trackers.json").is_file()
