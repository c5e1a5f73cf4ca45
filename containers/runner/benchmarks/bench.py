"""`make bench-runner`: the runner's loop against others, and a cold against a warm compile cache, on a CPU.

Rounds are interleaved: in each round every contestant trains once, in an order that rotates, and is compared
with the hand-written loop of the same round. Reported are the median ratio and the range of its middle half.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from contestants import CONTESTANTS

EXAMPLE = Path(__file__).parent.parent / "examples" / "small_classifier.py"


def measure_round(steps: int, names: list[str]) -> dict[str, tuple[float, float]]:
    """Return wall-clock and CPU seconds per step of every contestant."""
    seconds = {}
    for name in names:
        moments = CONTESTANTS[name](steps)
        count = len(moments.wall) - 1
        seconds[name] = (
            (moments.wall[-1] - moments.wall[0]) / count,
            (moments.cpu[-1] - moments.cpu[0]) / count,
        )
    return seconds


def compare(rounds: int, steps: int) -> dict[str, object]:
    names = list(CONTESTANTS)
    measure_round(steps // 4, names)  # imports and first allocations
    results = []
    for number in range(rounds):
        turned = names[number % len(names) :] + names[: number % len(names)]
        results.append(measure_round(steps, turned))
    return {name: summarise(name, results) for name in names}


def summarise(name: str, results: list[dict[str, tuple[float, float]]]) -> dict[str, object]:
    summary: dict[str, object] = {}
    for index, clock in enumerate(("wall", "cpu")):
        ratios = sorted(result[name][index] / result["by hand"][index] for result in results)
        quarter = len(ratios) // 4
        summary[clock] = {
            "ms_per_step": 1e3 * statistics.median(result[name][index] for result in results),
            "ratio_median": statistics.median(ratios),
            "ratio_middle_half": [ratios[quarter], ratios[-1 - quarter]],
        }
    return summary


def warm_up_seconds(cache: Path) -> float:
    """Start a fresh process that compiles the example's step, and return what it reports as warm-up."""
    with tempfile.TemporaryDirectory() as directory:
        line = [sys.executable, "-m", "devgw_runner", str(EXAMPLE), "--steps", "1", "--compile", "default"]
        paths = [
            "--checkpoint-dir",
            f"{directory}/c",
            "--log-dir",
            f"{directory}/l",
            "--cache-dir",
            str(cache),
        ]
        environment = {k: v for k, v in os.environ.items() if k not in {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}}
        subprocess.run([*line, *paths], check=True, env=environment, stdout=subprocess.DEVNULL, timeout=3600)
        events = (Path(directory) / "l" / "small_classifier" / "events.jsonl").read_text().splitlines()
        done = next(event for event in map(json.loads, events) if event["event"] == "warm-up-done")
        if done["rung"] != "compiled":
            raise SystemExit(f"the example fell to rung {done['rung']}; nothing to compare")
        return float(done["seconds"])


def compare_starts(repeats: int) -> dict[str, list[float]]:
    cold, warm = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(warm_up_seconds(Path(cache)))
            warm.append(warm_up_seconds(Path(cache)))
    return {"cold": cold, "warm": warm}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="more than 1 makes the ratios noisy on a shared machine")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {options.threads} threads",
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
        "loops": compare(options.rounds, options.steps),
        "starts": compare_starts(options.starts),
        "load_after": os.getloadavg()[0],
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
