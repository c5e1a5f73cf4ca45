"""The range test of the learning rate: a curve that is known, and a run that leaves no trace."""

import json
import math

import pytest
import tiny
from devgw_runner import run
from devgw_runner.cli import main
from devgw_runner.learning_rate_range import rates_between, run_range_test


def test_the_suggestion_is_where_the_loss_falls_steepest():
    """A loss that falls as a step of the logarithm around 1e-3 and runs away above 1."""
    rates = rates_between(1e-6, 100.0, 160)
    where = iter(rates)

    def step(rate: float) -> float:
        assert rate == next(where)
        fallen = 2.0 - 1.8 / (1 + math.exp(-4 * (math.log10(rate) + 3)))
        return fallen if rate < 1 else fallen + 30 * rate

    found = run_range_test(rates, step)
    # The smoothing looks back a few steps, a factor of three at the most here.
    assert 1e-3 <= found.suggestion <= 5e-3
    assert 1 <= found.diverged_at < 3
    assert found.points[-1].learning_rate < found.diverged_at


@pytest.mark.parametrize("loss", [1.0, math.inf])
def test_a_loss_that_never_falls_has_no_suggestion(loss):
    found = run_range_test(rates_between(1e-4, 1.0, 30), lambda rate: loss)
    assert found.suggestion is None
    assert (found.diverged_at is None) == (loss == 1.0)


def test_rates_rise_at_equal_ratios():
    rates = rates_between(1e-4, 1.0, 5)
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


def test_a_real_task_gets_a_suggestion_and_nothing_is_left(paths, capsys, tmp_path):
    assert run(tiny.Tiny, ["--run-name", "tiny", "--steps", "2"]) == 0
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    capsys.readouterr()
    line = ["find-lr", tiny.__file__, "--from", "1e-5", "--to", "100", "--count", "60", "-o", "json"]
    assert main([*line, "--run-name", "tiny", "--seed", "3"]) == 0
    report = json.loads("{" + capsys.readouterr().out.partition("{")[2])
    assert report["version"] == 1
    assert 1e-4 < report["suggestion"] < 10
    assert report["points"][0]["learning_rate"] == pytest.approx(1e-5)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    # With the suggestion the same task trains to a smaller loss than with a hundredth of it.
    losses = [point["smoothed"] for point in report["points"]]
    assert min(losses) < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "1", "--to", "0.1"], "the rates must rise"),
        (["--count", "3"], "at least 20 steps"),
        (["--from", "many"], "invalid float value"),
        (["--wdith", "3"], "unknown flag --wdith"),
    ],
)
def test_a_range_that_cannot_be_is_told(capsys, words, message):
    assert main(["find-lr", tiny.__file__, *words]) == 2
    assert message in capsys.readouterr().err
