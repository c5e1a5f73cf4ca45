"""`devgw-run sweep`, with the real Optuna: what is tried, given up, found, continued, and what is refused."""

import json
import os
import signal
import sqlite3

import pytest
from devgw_runner.cli import main
from devgw_runner.errors import UsageError
from devgw_runner.sweep.search import visible_devices
from devgw_runner.sweep.space import Between, OneOf, flags_for, read_space
from devgw_runner.sweep.study import Aim, Study
from sweeping import SweepingConfig

from conftest import SCRIPTS

SCRIPT = str(SCRIPTS / "sweeping.py")
RATE, WIDTH = ("--try", "rate=1e-4..1:log"), ("--try", "width=16..64:16")


def study_of(root, space, **changes) -> Study:
    words = {"sampler": "tpe", "prune": True, "seed": 0} | changes
    root.mkdir(parents=True, exist_ok=True)
    return Study(root, Aim("train.py", "loss", "min", space), **words)


def read_report(text: str) -> dict:
    return json.loads(text[text.index("{\n") :])


# ------------------------------------------------------------------ the space


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("rate=1e-4..1:log", Between(1e-4, 1, log=True)),
        ("rate=0.1..0.5", Between(0.1, 0.5)),
        ("width=16..64", Between(16, 64)),
        ("width=16..64:16", Between(16, 64, step=16)),
        ("rate=0..1:0.25", Between(0.0, 1, step=0.25)),
        ("kind=a,b", OneOf(("a", "b"))),
        ("width=16,64", OneOf((16, 64))),
        ("shift=true,false", OneOf((True, False))),
        ("batch-size=4,8", OneOf((4, 8))),
    ],
)
def test_a_range_is_written_in_one_word(word, expected):
    name, values = next(iter(read_space(None, [word], SweepingConfig).items()))
    assert values == expected
    assert name == word.partition("=")[0].replace("-", "_")
    assert type(values) is type(expected)


def test_a_file_holds_the_same_and_a_flag_goes_over_it(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text("rate: {low: 1e-4, high: 1, log: true}\nwidth: [16, 32]\nkind: {choices: [a, b]}\n")
    space = read_space(file, ["width=16..48:16"], SweepingConfig)
    assert space == {
        "rate": Between(1e-4, 1, log=True),
        "width": Between(16, 48, step=16),
        "kind": OneOf(("a", "b")),
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", "there is nothing to try"),
        ("rate=1..0.1", "1 is not below 0.1"),
        ("rate=0..1:log", "a logarithmic range begins above 0"),
        ("rate=a..b", "is no number"),
        ("rate=..1", "has no two ends"),
        ("rate=nan..1", "is no number"),
        ("width=16..64:100", "the step 100 makes no sense"),
        ("kind=a", "no two different values"),
        ("kind=a,a", "no two different values"),
        ("height=1..2", "the task has no setting height"),
        ("width=1.5..2.5", "width cannot be 1.5"),
        ("micro_batch=0..4", "micro_batch cannot be 0"),
        ("precision=fp32,fp33", "precision cannot be 'fp33'"),
        ("run_name=a,b", "run_name cannot be tried"),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_one_line(word, message):
    with pytest.raises(UsageError) as refused:
        read_space(None, [word] if word else [], SweepingConfig)
    assert message in refused.value.message
    assert "\n" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rate: [1", "is not YAML"),
        ("- rate", "holds no settings"),
        ("rate: 3", "rate is no range"),
        ("rate: {low: 1}", "rate is no range"),
        ("rate: {low: 1, high: 2, lgo: true}", "rate is no range"),
        ("rate: {low: 1, high: x}", "high is no number"),
        ("rate: {low: 1, high: 2, log: 3}", "log is 3"),
        ("kind: [[a], [b]]", "is no plain value"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_one_line(tmp_path, content, message):
    file = tmp_path / "space.yaml"
    file.write_text(content)
    with pytest.raises(UsageError) as refused:
        read_space(file, [], SweepingConfig)
    assert message in refused.value.message
    assert "space.yaml" in refused.value.message


def test_values_become_flags_of_the_task():
    flags = flags_for({"learning_rate": 1e-05, "shift": True, "csv": False, "kind": "a"})
    assert flags == ["--learning-rate=1e-05", "--shift", "--no-csv", "--kind=a"]


# ------------------------------------------------------------------ the study


def test_a_continued_study_draws_what_it_had_not_drawn(tmp_path):
    """The sampler's generator begins anew with each start; the same trials must not come again."""
    space = {"rate": Between(0.0, 1.0)}
    drawn = []
    for _ in range(4):
        study = study_of(tmp_path / "s", space)
        asked = study.ask(100)
        study.complete(asked, asked.values["rate"])
        drawn.append(asked.values["rate"])
    assert len(set(drawn)) == 4
    assert study_of(tmp_path / "s", space).best().value == min(drawn)


def test_an_interrupted_trial_goes_on_with_its_values_under_its_name(tmp_path):
    space = {"rate": Between(0.0, 1.0)}
    first = study_of(tmp_path / "s", space).ask(1)
    study = study_of(tmp_path / "s", space)
    again = study.ask(1)
    assert (again.run, again.values) == (first.run, first.values)
    assert study.ask(1) is None
    assert study.ended() == []
    study.complete(again, 0.5)
    assert [(trial.run, trial.state, trial.value) for trial in study.ended()] == [("trial-0000", "complete", 0.5)]
    assert study_of(tmp_path / "s", space).ask(1) is None


def test_another_aim_needs_another_name(tmp_path):
    study_of(tmp_path / "s", {"rate": Between(0.0, 1.0), "width": OneOf((1, 2))})
    with pytest.raises(UsageError, match="begun with another range of width"):
        study_of(tmp_path / "s", {"rate": Between(0.0, 1.0), "width": OneOf((1, 3))})


def test_trials_at_once_are_dealt_to_the_gpus_that_are_visible():
    assert visible_devices(None, 4, 2) == ("0", "1", "2", "3")
    assert visible_devices("2,3", 2, 2) == ("2", "3")
    assert visible_devices("GPU-a,GPU-b", 2, 1) == ()
    assert visible_devices(None, 0, 4) == ()


# ------------------------------------------------------------------ the command


@pytest.mark.slow
def test_the_best_settings_are_found_and_a_longer_sweep_goes_on(capsys, tmp_path):
    line = ["sweep", SCRIPT, "--try", "kind=a,b", "--try", "width=16..64:16", "--jobs", "2", "-o", "json"]
    assert main([*line, "--trials", "1"]) == 0
    first = read_report(capsys.readouterr().out)
    assert main([*line, "--trials", "3"]) == 0
    report = read_report(capsys.readouterr().out)
    assert [trial["run"] for trial in report["trials"]] == ["trial-0000", "trial-0001", "trial-0002"]
    assert report["trials"][:1] == first["trials"]
    for trial in report["trials"]:
        assert trial["state"] == "complete"
        assert trial["value"] == pytest.approx(1.0 + trial["settings"]["width"] / 1000, rel=1e-5)
    assert report["best"]["value"] == min(trial["value"] for trial in report["trials"])
    assert (report["metric"], report["mode"], report["version"]) == ("loss", "min", 1)
    root = tmp_path / "checkpoints" / "sweeping-sweep"
    assert (root / "study.db").exists()
    assert all((root / trial["run"] / "step-00000004").is_dir() for trial in report["trials"])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["TERM", "KILL"])
def test_a_sweep_that_is_ended_goes_on_where_it_was(devgw_run, finished, poll, tmp_path, how):
    """Its trial saves, also where the sweep is killed, and then goes on from there."""
    line = ("sweep", SCRIPT, *RATE, "--steps", "12", "--checkpoint-every", "1")
    process = devgw_run(*line, "--trials", "1", PAUSE="0.3")
    logs = tmp_path / "logs" / "sweeping-sweep" / "trial-0000"

    def steps() -> list[int]:
        path = logs / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [r["step"] for r in map(json.loads, lines) if r["kind"] == "train"]

    poll(lambda: len(steps()) >= 3, "the trial to train")
    process.send_signal(getattr(signal, f"SIG{how}"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == {"TERM": 143, "KILL": -9}[how], err
    if how == "TERM":
        assert "stopped after 0 of 1 trials; the same line goes on" in err
    done = finished(*line, "--trials", "1", PAUSE="0")
    assert done.returncode == 0, done.stderr
    assert "best of 1: trial-0000  loss " in done.stdout
    assert "resumed from step-" in (logs / "output.log").read_text()
    assert sorted(set(steps())) == list(range(1, 13))
    assert len(steps()) < 16  # what was done was not done again


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_given_up_and_its_checkpoint_stays(capsys, monkeypatch, tmp_path):
    """After five complete trials the median decides; a bad one ends at its first evaluation."""
    space = {"width": OneOf((1, 1000))}
    root = tmp_path / "checkpoints" / "s"
    study = study_of(root, space)
    study._study.set_user_attr("made_of", json.dumps(Aim(SCRIPT, "loss", "min", space).to_json()))
    for _ in range(5):
        study._study.enqueue_trial({"width": 1})
        asked = study.ask(100)
        for step in range(1, 41):
            asked.report(1.001, step)
        study.complete(asked, 1.001)
    study._study.enqueue_trial({"width": 1000})
    monkeypatch.setenv("PAUSE", "0.1")
    line = ["sweep", SCRIPT, "--try", "width=1,1000", "--name", "s", "--trials", "6", "-o", "json"]
    assert main([*line, "--steps", "40"]) == 0
    last = read_report(capsys.readouterr().out)["trials"][-1]
    assert (last["state"], last["settings"]) == ("pruned", {"width": 1000})
    assert last["reason"] == "given up at step 1"
    assert list((root / "trial-0005").glob("step-*"))
    assert not (root / "trial-0005" / "step-00000040").exists()


@pytest.mark.slow
def test_what_the_values_bring_about_ends_the_trial_and_not_the_sweep(capsys, monkeypatch):
    monkeypatch.setenv("FAIL", "nan")
    assert main(["sweep", SCRIPT, "--try", "width=16,64", "--trials", "3", "-o", "json"]) == 0
    trials = read_report(capsys.readouterr().out)["trials"]
    assert len(trials) == 3
    for trial in trials:
        assert trial["state"] == ("failed" if trial["settings"]["width"] == 64 else "complete")
        assert trial.get("reason", "its loss was not finite") == "its loss was not finite"
    assert {trial["state"] for trial in trials} == {"failed", "complete"}


@pytest.mark.slow
def test_a_bug_of_the_task_ends_the_sweep_and_the_trial_is_made_up(capsys, monkeypatch, tmp_path):
    """With the run's own word and code; when it is mended, the same line goes on."""
    monkeypatch.setenv("FAIL", "bug")
    line = ["sweep", SCRIPT, "--try", "width=64,128", "--trials", "1"]
    assert main(line) == 1
    err = capsys.readouterr().err
    assert "error: trial-0000 ended with code 1: ValueError: my own bug" in err
    assert "hint: its output is in " in err
    (tmp_path / "mended").touch()
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "best of 1: trial-0000  loss " in out
    assert f"train with it: devgw-run {SCRIPT} --width=" in out


@pytest.mark.slow
def test_a_metric_that_the_task_has_not_is_told_with_those_that_it_has(capsys):
    assert main(["sweep", SCRIPT, *WIDTH, "--metric", "accuracy", "--trials", "1"]) == 10
    err = capsys.readouterr().err
    assert "error: the run records no metric accuracy" in err
    assert "hint: it records loss, score" in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "there is nothing to try"),
        (["--trials", "0", *WIDTH], 2, "--trials 0 makes no sense"),
        (["--jobs", "many", *WIDTH], 2, "--jobs many makes no sense"),
        (["--name", "../up", *WIDTH], 2, "--name ../up is no name of a directory"),
        (["--name", "..", *WIDTH], 2, "--name .. is no name of a directory"),
        (["--width", "3", *WIDTH], 2, "--width is among the settings to try too"),
        (["--run-name=x", *WIDTH], 2, "--run-name is chosen for each trial by the sweep"),
        (["--no-such-flag", *WIDTH], 2, "unknown flag --no-such-flag"),
        (["--learning-rate=-1", *WIDTH], 2, "--learning-rate: '-1'"),
        (["--space", "nowhere.yaml"], 2, "cannot read nowhere.yaml"),
        (["--checkpoint-dir", "/proc/devgw", *WIDTH], 13, "preparing the checkpoints directory"),
    ],
)
def test_what_cannot_be_is_told_before_the_first_trial(words, code, message, capsys, tmp_path):
    assert main(["sweep", SCRIPT, *words]) == code
    err = capsys.readouterr().err
    assert f"error: {message}" in err or message in err
    assert "hint: " in err
    assert not list(tmp_path.glob("**/trial-*"))


def test_a_study_that_is_no_database_is_told_and_left(capsys, tmp_path):
    root = tmp_path / "checkpoints" / "sweeping-sweep"
    root.mkdir(parents=True)
    (root / "study.db").write_bytes(b"no database" * 1000)
    assert main(["sweep", SCRIPT, *WIDTH, "--trials", "1"]) == 13
    err = capsys.readouterr().err
    assert "study.db cannot be used: file is not a database" in err
    assert (root / "study.db").read_bytes() == b"no database" * 1000


def test_a_second_sweep_of_one_name_is_refused(devgw_run, poll, tmp_path, capsys):
    process = devgw_run("sweep", SCRIPT, *WIDTH, "--trials", "1", "--steps", "1000", PAUSE="0.1")
    poll((tmp_path / "logs" / "sweeping-sweep" / "trial-0000" / "output.log").exists, "the first trial to begin")
    assert main(["sweep", SCRIPT, *WIDTH, "--trials", "1"]) == 21
    assert "is in use by another run" in capsys.readouterr().err
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143


def test_without_optuna_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert main(["sweep", SCRIPT, *WIDTH]) == 2
    assert "error: optuna is not installed" in capsys.readouterr().err


def test_trials_share_the_compile_cache(tmp_path, monkeypatch):
    """What each trial inherits is one directory, wherever the sweep was started from."""
    monkeypatch.setenv("DEVGW_TRAIN_CACHE_DIR", "cache")
    seen = []
    monkeypatch.setattr("devgw_runner.commands.sweep.search", lambda *_: seen.append(dict(os.environ)) or 143)
    assert main(["sweep", SCRIPT, *WIDTH]) == 143
    assert seen[0]["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "inductor")
    database = sqlite3.connect(tmp_path / "checkpoints" / "sweeping-sweep" / "study.db")
    assert database.execute("select count(*) from trials").fetchone() == (0,)
    database.close()
