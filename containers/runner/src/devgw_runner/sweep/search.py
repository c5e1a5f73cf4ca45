"""The sweep itself: keep so many trials running, follow each, tell the study how it ended. Read top to bottom."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from devgw_runner.errors import (
    SIGNAL_EXIT_BASE,
    NotFiniteError,
    OutOfMemoryError,
    RunnerError,
    TaskError,
)
from devgw_runner.sweep.space import flags_for
from devgw_runner.sweep.study import Asked, Ended, Study
from devgw_runner.sweep.trial_process import Places, TrialProcess, best_of

LOOK_SECONDS = 0.2
STOP_SECONDS = 120.0
"""What a trial has to save a checkpoint and end; then it is killed, and goes on from an older one."""
# What the values that were tried can bring about; every other failure would end each trial alike.
BY_VALUES = {NotFiniteError.exit_code: "its loss was not finite", OutOfMemoryError.exit_code: "out of device memory"}
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class SearchSettings:
    """How many trials in all, how many at once, and by what they are judged."""

    trials: int
    jobs: int
    metric: str
    mode: str
    devices: tuple[str, ...] = ()


@dataclass
class Running:
    """A trial and its process; `pruned_at` is the step at which the study gave it up."""

    asked: Asked
    process: TrialProcess
    device: str | None
    seen: dict[int, float] = field(default_factory=dict)
    pruned_at: int | None = None
    stop_sent: float | None = None


def search(study: Study, places: Places, settings: SearchSettings, tell: Callable[[Ended], None]) -> int:
    """Run trials until there are enough; return 0, or the exit code of the signal that stopped the sweep.

    Raises:
        RunnerError: a trial failed for a reason that its values have no part in.
    """
    running: list[Running] = []
    with _stop_signals() as stopped:
        try:
            while True:
                if stopped:
                    return SIGNAL_EXIT_BASE + stopped[0]  # what runs goes on with the next start
                while len(running) < settings.jobs and (asked := study.ask(settings.trials)) is not None:
                    running.append(_start(asked, places, settings, running))
                if not running:
                    return 0
                for trial in list(running):
                    ended = _follow(trial, study, settings)
                    if ended is not None:
                        running.remove(trial)
                        tell(ended)
                time.sleep(LOOK_SECONDS)
        finally:
            _stop_all(running)


def _start(asked: Asked, places: Places, settings: SearchSettings, running: list[Running]) -> Running:
    taken = [trial.device for trial in running]
    device = min(settings.devices, key=taken.count, default=None)
    process = TrialProcess(places, asked.run, flags_for(asked.values), settings.metric, device)
    return Running(asked, process, device)


def _follow(trial: Running, study: Study, settings: SearchSettings) -> Ended | None:
    """Look once at a trial: tell the study what came, stop what it gives up; return the trial if it is over.

    Raises:
        RunnerError: the sweep cannot go on. The study still has the trial, which the next start takes up again.
    """
    code = trial.process.exit_code()  # asked before reading, so that nothing is missed
    for step, value in trial.process.read():
        is_new = step not in trial.seen
        trial.seen[step] = value
        if is_new and trial.asked.report(value, step) and trial.pruned_at is None and code is None:
            trial.pruned_at, trial.stop_sent = step, time.monotonic()
            trial.process.stop()
    if code is None:
        if trial.stop_sent is not None and time.monotonic() - trial.stop_sent > STOP_SECONDS:
            trial.process.kill()
        return None
    if trial.pruned_at is not None:
        return study.prune(trial.asked, f"given up at step {trial.pruned_at}")
    if code in BY_VALUES:
        return study.fail(trial.asked, BY_VALUES[code])
    if code != 0:
        raise _failure(trial.process, code)
    best = best_of(list(trial.seen.values()), settings.mode)
    if best is None:
        if trial.seen:
            return study.fail(trial.asked, f"{settings.metric} was never a number")
        raise TaskError(
            f"{trial.process.run} ended without a value of {settings.metric}",
            "let Task.data return 'val' data, or judge by --metric train/loss",
        )
    return study.complete(trial.asked, best)


def _stop_all(running: list[Running]) -> None:
    """Let every trial save, and wait for it."""
    for trial in running:
        if trial.stop_sent is None:
            trial.process.stop()
    deadline = time.monotonic() + STOP_SECONDS
    for trial in running:
        while trial.process.exit_code() is None and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        if trial.process.exit_code() is None:
            trial.process.kill()


def _failure(process: TrialProcess, code: int) -> RunnerError:
    """Say what ended a trial, with the exit code that the run had."""
    kinds: dict[int, type[RunnerError]] = {kind.exit_code: kind for kind in RunnerError.__subclasses__()}
    kind = kinds.get(code, RunnerError)
    return kind(f"{process.run} ended with code {code}: {process.last_words()}", f"its output is in {process.output}")


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Note the first stop signal while the block runs."""
    noted: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: noted.append(number)) for number in STOPS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def visible_devices(named: str | None, count: int, jobs: int) -> tuple[str, ...]:
    """Return the GPUs that trials at once are dealt to, none where there is one or where they run one by one."""
    if jobs == 1 or count < 2:
        return ()
    return tuple(named.split(",")) if named else tuple(map(str, range(count)))


def places_of(name: str, checkpoints: Path, logs: Path, command: tuple[str, ...]) -> Places:
    """Return where the runs of a sweep stand: below its own name in both roots."""
    return Places(checkpoints.absolute() / name, logs.absolute() / name, command)
