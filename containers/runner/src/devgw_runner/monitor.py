"""Watch one evaluation metric: which checkpoints are best, and when there is no progress any more.

Saving and ending are left to `loop`, the files of the best checkpoints to `checkpoint.store`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from devgw_runner.config import TrainConfig
from devgw_runner.errors import TaskError, UsageError

# Words of metrics that get smaller as a model gets better; all others get larger.
SMALLER_IS_BETTER = ("loss", "error", "perplexity", "ppl", "nll", "mse", "mae", "rmse", "wer", "cer", "fid", "distance")


def choose_mode(name: str, wish: str) -> str:
    """Return "min" or "max": as asked for, else by the metric's name."""
    if wish != "auto":
        return wish
    words = name.lower().replace("-", "_").split("_")
    return "min" if any(word in SMALLER_IS_BETTER for word in words) else "max"


@dataclass
class Monitor:
    """The best values seen so far, best first, with their steps; and the evaluations since the last progress."""

    name: str = "loss"
    mode: str = "min"
    keep: int = 0
    patience: int = 0
    delta: float = 0.0
    best: list[tuple[float, int]] = field(default_factory=list)
    stale: int = 0
    last: tuple[float, int] | None = None
    _reference: float | None = None

    @property
    def is_exhausted(self) -> bool:
        """Say whether early stopping ends the run."""
        return bool(self.patience) and self.stale >= self.patience

    def observe(self, means: Mapping[str, float], step: int) -> float:
        """Take one evaluation's means and return the monitored one.

        Raises:
            TaskError: the evaluation has no such metric.
        """
        self.require(means)
        value = float(means[self.name])
        self.last = (value, step)
        if self._is_progress(value):
            self._reference, self.stale = value, 0
        else:
            self.stale += 1
        if not math.isnan(value):
            # A step evaluated again replaces its own entry; of equal values the earlier is kept.
            others = [entry for entry in self.best if entry[1] != step]
            ranked = sorted([*others, (value, step)], key=lambda entry: (self._cost(entry[0]), entry[1]))
            self.best = ranked[: max(1, self.keep)]
        return value

    def require(self, means: Mapping[str, Any]) -> None:
        """Refuse a metric that evaluations do not have.

        Raises:
            TaskError: it lists those there are.
        """
        if self.name not in means:
            there = ", ".join(sorted(means))
            raise TaskError(f"an evaluation has no metric {self.name}", f"--monitor takes one of: {there}")

    def is_among_best(self, step: int) -> bool:
        """Say whether the checkpoint of this step is one of those to keep."""
        return any(kept == step for _, kept in self.best[: self.keep])

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint's manifest says about the evaluation at its step."""
        if self.last is None:
            return {}
        value, step = self.last
        return {"name": self.name, "mode": self.mode, "value": value, "step": step}

    def words(self) -> str:
        """Say how it stands, for an event."""
        if not self.best:
            return f"{self.name} was never a number"
        value, step = self.best[0]
        return f"the best {self.name} is {value:.6g} at step {step}"

    def state_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "mode": self.mode,
            "best": [list(entry) for entry in self.best],
            "stale": self.stale,
            "last": list(self.last) if self.last else None,
            "reference": self._reference,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what was seen before, unless it was about another metric."""
        if (state.get("name"), state.get("mode")) != (self.name, self.mode):
            return
        self.best = [(float(value), int(step)) for value, step in state["best"]]
        self.stale = int(state["stale"])
        self.last = (float(state["last"][0]), int(state["last"][1])) if state["last"] else None
        self._reference = state["reference"]

    def _is_progress(self, value: float) -> bool:
        if math.isnan(value):
            return False
        return self._reference is None or self._cost(value) < self._cost(self._reference) - self.delta

    def _cost(self, value: float) -> float:
        return value if self.mode == "min" else -value


def make_monitor(config: TrainConfig, *, has_evaluation: bool, needs_evaluation: str = "") -> Monitor:
    """Make the monitor that the settings ask for.

    Raises:
        UsageError: something needs an evaluation, and the task has no validation data.
    """
    needed = needs_evaluation
    if config.early_stop:
        needed = "--early-stop"
    elif config.checkpoint_best:
        needed = "--checkpoint-best"
    if needed and not has_evaluation:
        raise UsageError(f"{needed} needs an evaluation", "let Task.data return data for 'val'")
    return Monitor(
        name=config.monitor,
        mode=choose_mode(config.monitor, config.monitor_mode),
        keep=config.checkpoint_best,
        patience=config.early_stop,
        delta=config.early_stop_delta,
    )
