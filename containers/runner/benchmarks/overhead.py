"""`python benchmarks/overhead.py`: what the runner adds to the three shipped models, on a CPU.

Two loops train the same model in one process and take turns after every step, so that whatever else the machine
does falls on both. Reported: the median ratio of neighbouring steps and its middle half, the pause of a
checkpoint in steps, and a start that resumes beside one that does not.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
import gpt2  # noqa: E402 - the examples are scripts beside us, no package
import resnet50  # noqa: E402
import small_classifier  # noqa: E402
from devgw_runner import Task  # noqa: E402
from devgw_runner.build import assemble  # noqa: E402
from devgw_runner.loop import save, train  # noqa: E402
from devgw_runner.parallel.world import World  # noqa: E402
from devgw_runner.paths import find_paths, prepare_paths  # noqa: E402
from devgw_runner.probe import prepare  # noqa: E402
from devgw_runner.signals import Signals  # noqa: E402
from devgw_runner.task import LossOut  # noqa: E402

LOG_EVERY = 10
WARM_STEPS = 3
SAVES = 3
STARTS = 3


@dataclass(frozen=True)
class Job:
    """One shipped model at a size that a CPU can step through."""

    task: type[Task[Any]]
    steps: int
    flags: dict[str, Any]
    line: tuple[str, ...]


def without_schedule(task: type[Task[Any]]) -> type[Task[Any]]:
    """Both loops have the same constant learning rate."""
    return type(task.__name__, (task,), {"schedule": lambda *_: None})


JOBS = {
    "small classifier, batch 64": Job(
        without_schedule(small_classifier.Shapes), 200, {"batch_size": 64, "width": 12}, ("small_classifier.py",)
    ),
    "ResNet-50, 64x64, batch 16": Job(
        without_schedule(resnet50.Images),
        20,
        {"batch_size": 16, "image_size": 64},
        ("resnet50:Images", "--batch-size", "16", "--image-size", "64"),
    ),
    "GPT-2 124M, 128 tokens, batch 2": Job(
        without_schedule(gpt2.LanguageModel),
        20,
        {"batch_size": 2, "context": 128},
        ("gpt2:LanguageModel", "--batch-size", "2", "--context", "128"),
    ),
}


class Turns:
    """Lets one loop step at a time: who asks for a batch has ended a step, and waits until the other has too."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._turn = 0
        self._over = False
        self.steps: tuple[list[tuple[float, float]], ...] = ([], [])

    def batches(self, player: int, source: Iterator[Any]) -> "TurnBatches":
        return TurnBatches(self, player, source)

    def await_turn(self, player: int) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._turn == player or self._over)

    def pass_on(self, player: int) -> None:
        with self._condition:
            self._turn = 1 - player
            self._condition.notify_all()

    def end(self) -> None:
        with self._condition:
            self._over = True
            self._condition.notify_all()


class TurnBatches:
    """Batches whose steps are timed from one request to the next, without the waiting between."""

    def __init__(self, turns: Turns, player: int, source: Any) -> None:
        self._turns, self._player, self._source = turns, player, source
        self._begun: tuple[float, float] | None = None

    def __next__(self) -> Any:
        if self._begun is not None:
            wall, cpu = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
            self._turns.steps[self._player].append((wall, cpu))
            self._turns.pass_on(self._player)
        self._turns.await_turn(self._player)
        self._begun = (time.perf_counter(), time.process_time())
        return next(self._source)

    def __iter__(self) -> "TurnBatches":
        return self

    def close(self) -> None:
        self._source.close()


def by_hand(job: Job, turns: Turns) -> None:
    """What a careful user writes, with the same reports and the same watch over the loss."""
    torch.manual_seed(0)
    task = job.task()
    config = task.config(**job.flags)
    model = task.model(config)
    if any(isinstance(module, nn.Conv2d) for module in model.modules()):
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=True)
    data = task.data(config, "train")
    loader = DataLoader(data, config.batch_size, sampler=range(10**6) if len(data) > 10**6 else None, drop_last=True)
    batches = turns.batches(0, endless(loader))
    totals: dict[str, torch.Tensor] = {}
    for step in range(1, job.steps + 1):
        batch = next(batches)
        if isinstance(batch, list) and batch[0].dim() == 4:
            batch[0] = batch[0].contiguous(memory_format=torch.channels_last)
        out = task.loss(model, batch)
        loss, metrics = (out.loss, out.metrics) if isinstance(out, LossOut) else (out, {})
        loss.backward()
        if config.grad_clip:
            nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for name, value in {"loss": loss, **metrics}.items():
            totals[name] = totals.get(name, torch.zeros(())) + value.detach()
        if not torch.isfinite(loss):
            raise FloatingPointError(step)
        if step % LOG_EVERY == 0:
            print(step, {name: float(value) / LOG_EVERY for name, value in totals.items()}, file=sys.stderr)
            totals = {}
    turns.pass_on(0)
    turns.end()


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def open_run(job: Job, root: Path, steps: int) -> tuple[Any, Any]:
    config = job.task.config(
        **job.flags, steps=steps, compile="off", workers=0, log_every=LOG_EVERY, checkpoint_minutes=0,
        checkpoint_dir=root / "c", log_dir=root / "l", cache_dir=root / "k",
    )  # fmt: skip
    paths = find_paths(config, "bench")
    prepare_paths(paths)
    task = job.task()
    return assemble(prepare(task, config, paths, World(), torch.device("cpu")), Signals())


def compare(job: Job) -> dict[str, Any]:
    turns = Turns()
    with tempfile.TemporaryDirectory() as directory:
        run, warm = open_run(job, Path(directory), job.steps)
        run.batches = turns.batches(1, run.batches)
        hand = threading.Thread(target=by_hand, args=(job, turns))
        hand.start()
        try:
            train(run, warm)
        finally:
            turns.end()
            hand.join()
            run.close()
    pairs = list(zip(turns.steps[0], turns.steps[1], strict=False))[WARM_STEPS:]
    summary: dict[str, Any] = {"pairs": len(pairs)}
    for index, clock in enumerate(("wall", "cpu")):
        ratios = sorted(own[index] / hand[index] for hand, own in pairs)
        quarter = len(ratios) // 4
        summary[clock] = {
            "hand_ms": 1e3 * statistics.median(hand[index] for hand, _ in pairs),
            "runner_ms": 1e3 * statistics.median(own[index] for _, own in pairs),
            "ratio_median": statistics.median(ratios),
            "ratio_middle_half": [ratios[quarter], ratios[-1 - quarter]],
        }
    return summary


def pause(job: Job) -> dict[str, float]:
    """Return how long the loop stands while a checkpoint is begun, and how long a step takes beside it."""
    with tempfile.TemporaryDirectory() as directory:
        run, warm = open_run(job, Path(directory), 5)
        seconds: list[float] = []
        inner, moments = run.batches, []

        class Noted:
            def __next__(self) -> Any:
                moments.append(time.perf_counter())
                return next(inner)

            def close(self) -> None:
                inner.close()

        run.batches = Noted()
        train(run, warm)
        for number in range(SAVES):
            run.writer.wait()
            run.writer.saved_step = -1 - number
            begun = time.perf_counter()
            save(run, wait=False)
            seconds.append(time.perf_counter() - begun)
        run.close()
    step = statistics.median(later - earlier for earlier, later in pairwise(moments[1:]))
    return {
        "pause_ms": 1e3 * statistics.median(seconds),
        "step_ms": 1e3 * step,
        "steps": statistics.median(seconds) / step,
    }


def start_seconds(job: Job, root: Path, steps: int, name: str) -> tuple[float, float]:
    """Return wall and CPU seconds of a whole process that takes one step more and saves."""
    paths = ["--checkpoint-dir", f"{root}/c", "--log-dir", f"{root}/l", "--cache-dir", f"{root}/k", "--run-name", name]
    line = [sys.executable, "-m", "devgw_runner", *job.line, "--steps", str(steps), "--compile", "off", *paths]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run(line, check=True, cwd=EXAMPLES, stdout=subprocess.DEVNULL, timeout=3600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, cpu


def compare_starts(job: Job) -> dict[str, Any]:
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as directory:
        for number in range(STARTS):
            cold.append(start_seconds(job, Path(directory), 1, f"run{number}"))
            warm.append(start_seconds(job, Path(directory), 2, f"run{number}"))
    ratios = [sorted(w[i] / c[i] for c, w in zip(cold, warm, strict=True)) for i in (0, 1)]
    return {"cold": cold, "resumed": warm, "wall_ratios": ratios[0], "cpu_ratios": ratios[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="a part of a job's name")
    parser.add_argument("--parts", default="loops,pauses,starts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measures: dict[str, Callable[[Job], Any]] = {"loops": compare, "pauses": pause, "starts": compare_starts}
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {options.threads} threads",
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
    }
    for part in options.parts.split(","):
        report[part] = {name: measures[part](job) for name, job in JOBS.items() if options.only in name}
    report["load_after"] = os.getloadavg()[0]
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
