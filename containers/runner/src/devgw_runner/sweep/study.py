"""What has been tried and what is tried next: Optuna's study in a file beside the trials' checkpoints.

Optuna is imported here and nowhere else. See `trial_process` for what a trial runs.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devgw_runner.errors import StorageError, UsageError
from devgw_runner.sweep.space import OneOf, Range, Space

STUDY_FILE = "study.db"
STARTUP_TRIALS = 5
"""Trials that are never pruned, because there is nothing yet to compare them with."""
RUN, MADE_OF = "run", "made_of"


@dataclass(frozen=True)
class Aim:
    """What a sweep looks for; it stands in the study, and a continued sweep must look for the same."""

    script: str
    metric: str
    mode: str
    space: Space

    def to_json(self) -> dict[str, Any]:
        return {
            "script": self.script,
            "metric": self.metric,
            "mode": self.mode,
            "space": {name: values.to_json() for name, values in sorted(self.space.items())},
        }


@dataclass(frozen=True)
class Ended:
    """One trial that is over. `value` is None where it gave none; `state` is complete, pruned or failed."""

    run: str
    state: str
    value: float | None
    values: dict[str, Any]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"run": self.run, "state": self.state, "value": self.value, "settings": self.values} | (
            {"reason": self.reason} if self.reason else {}
        )


@dataclass
class Asked:
    """One trial to run: the name of its run, and the values it tries."""

    run: str
    values: dict[str, Any]
    handle: Any

    def report(self, value: float, step: int) -> bool:
        """Tell the study one evaluation; say whether it gives the trial up."""
        self.handle.report(value, step)
        return bool(self.handle.should_prune())


class Study:
    """An Optuna study of one sweep. One process has it at a time; that is the caller's to see to."""

    def __init__(self, root: Path, aim: Aim, *, sampler: str, prune: bool, seed: int) -> None:
        self._optuna = optuna = import_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._distributions = {name: _distribution(optuna, values) for name, values in aim.space.items()}
        self._file = root / STUDY_FILE
        with self._translated():
            self._study = optuna.create_study(
                storage=f"sqlite:///{self._file}",
                study_name="sweep",
                direction="minimize" if aim.mode == "min" else "maximize",
                load_if_exists=True,
            )
            _require_same_aim(self._study.user_attrs.get(MADE_OF), aim)
            self._study.set_user_attr(MADE_OF, json.dumps(aim.to_json()))
            drawn = len(self._study.get_trials(deepcopy=False))
        # A continued sweep must not draw again what it drew first.
        kinds = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        self._study.sampler = kinds[sampler](seed=seed + drawn)
        self._study.pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS) if prune else optuna.pruners.NopPruner()
        )
        self._requeue_interrupted()

    def ask(self, most: int) -> Asked | None:
        """Return the next trial: one that was interrupted, else a new one; None if `most` runs were begun."""
        with self._translated():
            waiting = self._trials("WAITING")
            if not waiting and len(self._begun()) >= most:
                return None
            trial = self._study.ask(self._distributions)
            run = trial.user_attrs.get(RUN) or f"trial-{trial.number:04d}"
            trial.set_user_attr(RUN, run)
        return Asked(run, dict(trial.params), trial)

    def complete(self, asked: Asked, value: float) -> Ended:
        return self._tell(asked, "COMPLETE", value)

    def prune(self, asked: Asked, reason: str) -> Ended:
        return self._tell(asked, "PRUNED", None, reason)

    def fail(self, asked: Asked, reason: str) -> Ended:
        return self._tell(asked, "FAIL", None, reason)

    def ended(self) -> list[Ended]:
        """Return every trial that is over, by run; an interrupted one counts when it was made up."""
        with self._translated():
            last = {self._run_of(trial): trial for trial in self._trials("COMPLETE", "PRUNED", "FAIL")}
            open_runs = {self._run_of(trial) for trial in self._trials("WAITING", "RUNNING")}
        return [_read(run, trial) for run, trial in sorted(last.items()) if run not in open_runs]

    def best(self) -> Ended | None:
        """Return the best complete trial; of equal ones the first."""
        complete = [trial for trial in self.ended() if trial.state == "complete" and trial.value is not None]
        is_min = self._study.direction == self._optuna.study.StudyDirection.MINIMIZE
        return min(complete, key=lambda trial: (trial.value or 0.0) * (1 if is_min else -1), default=None)

    def _requeue_interrupted(self) -> None:
        """Trials that were running when the sweep ended go on from their checkpoints."""
        with self._translated():
            for trial in self._trials("RUNNING"):
                self._study.enqueue_trial(trial.params, user_attrs={RUN: self._run_of(trial)})
                self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def _tell(self, asked: Asked, state: str, value: float | None, reason: str = "") -> Ended:
        with self._translated():
            if reason:
                asked.handle.set_user_attr("reason", reason)
            trial = self._study.tell(asked.handle, value, state=self._optuna.trial.TrialState[state])
        return _read(asked.run, trial)

    def _begun(self) -> set[str]:
        return {self._run_of(trial) for trial in self._trials("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")}

    def _trials(self, *states: str) -> list[Any]:
        wanted = tuple(self._optuna.trial.TrialState[state] for state in states)
        found: list[Any] = self._study.get_trials(deepcopy=False, states=wanted)
        return found

    @staticmethod
    def _run_of(trial: Any) -> str:
        return str(trial.user_attrs.get(RUN) or f"trial-{trial.number:04d}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the database says into our words.

        Raises:
            StorageError: the file cannot be read or written.
        """
        from sqlalchemy.exc import SQLAlchemyError  # comes with optuna

        try:
            yield
        except (SQLAlchemyError, self._optuna.exceptions.StorageInternalError) as exc:
            cause = exc.__cause__ or exc
            line = str(getattr(cause, "orig", None) or cause).splitlines()[0]
            hint = "free space, or move it away; another --name begins a new sweep"
            raise StorageError(f"the sweep's study {self._file} cannot be used: {line}", hint) from exc


def import_optuna() -> Any:
    """Import Optuna.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import optuna
    except ImportError as exc:
        raise UsageError("optuna is not installed", "pip install 'devgw-runner[sweep]'") from exc
    return optuna


def _distribution(optuna: Any, values: Range) -> Any:
    if isinstance(values, OneOf):
        return optuna.distributions.CategoricalDistribution(values.choices)
    if values.is_whole:
        step = 1 if values.step is None else int(values.step)
        return optuna.distributions.IntDistribution(int(values.low), int(values.high), log=values.log, step=step)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _require_same_aim(written: str | None, aim: Aim) -> None:
    """Refuse to go on with a study of something else.

    Raises:
        UsageError: it names what differs.
    """
    there, here = json.loads(written) if written else aim.to_json(), json.loads(json.dumps(aim.to_json()))
    for name in here:
        if there[name] != here[name]:
            what = f"the {name} {there[name]}, now {here[name]}"
            if name == "space":
                changed = sorted(k for k in there[name].keys() | here[name] if there[name].get(k) != here[name].get(k))
                what = f"another range of {', '.join(changed)}"
            raise UsageError(f"this sweep was begun with {what}", "choose another --name, or the same as before")


def _read(run: str, trial: Any) -> Ended:
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[trial.state.name]
    value = float(trial.value) if trial.value is not None else None
    return Ended(run, state, value, dict(trial.params), str(trial.user_attrs.get("reason", "")))
