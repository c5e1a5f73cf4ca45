"""What each choice brings on one GPU: the shipped jobs, one choice after another, on synthetic data.

    python benchmarks/gpu_ladder.py > gpu.json

For each batch size: eager fp32 NCHW, + channels_last, + bf16, + compile, + whole-step graphs. Beside
each rate stand the two floors: operations (dense peak of the precision) and bytes (device bandwidth).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from devgw_runner.errors import PreflightError
from devgw_runner.measure import device_facts
from devgw_runner.metrics.peak import peak_flops

EXAMPLES = Path(__file__).parent.parent / "examples"
STEPS, LOG_EVERY = 120, 20
# The class without an optimizer of its own: graphs are captured around the runner's fused AdamW.
RESNET = "resnet50:Images"
RESNET_BATCHES = (8, 32, 256, 512)
RESNET_FLOPS = 24.3e9  # per image, forward and backward, from the layers
RESNET_BYTES = 329e6  # per image, unfused batch norm, bf16 activations; counted from the layers
GPT = "gpt2:LanguageModel"
GPT_BATCHES = (8, 16, 32)
GPT_TOKENS = 1024
GPT_FLOPS = 854.8e6  # per token, 6N + 12LTE
BANDWIDTH = {"H200": 4.8e12, "H100": 3.35e12, "A100": 2.0e12}  # bytes per second, data sheets

STAIRS = {
    "eager fp32 NCHW": [
        "--precision",
        "fp32",
        "--memory-format",
        "contiguous",
        "--compile",
        "off",
        "--graphs",
        "off",
    ],
    "+ channels_last": ["--precision", "fp32", "--compile", "off", "--graphs", "off"],
    "+ bf16": ["--compile", "off", "--graphs", "off"],
    "+ compile": ["--graphs", "off"],
    "+ graphs": ["--graphs", "on"],
}


def measure(task: str, flags: list[str]) -> dict[str, object]:
    """Train once and return the median rate after warm-up, or the error's first line."""
    with tempfile.TemporaryDirectory() as directory:
        paths = ["--checkpoint-dir", f"{directory}/c", "--log-dir", f"{directory}/l", "--run-name", "ladder"]
        line = [
            sys.executable,
            "-m",
            "devgw_runner",
            task,
            "--steps",
            str(STEPS),
            "--log-every",
            str(LOG_EVERY),
        ]
        done = subprocess.run(
            [*line, *flags, *paths], cwd=EXAMPLES, capture_output=True, text=True, check=False, timeout=3600
        )
        if done.returncode != 0:
            return {"error": (done.stderr.strip() or "no message").splitlines()[0]}
        text = Path(directory, "l", "ladder", "metrics.jsonl").read_text(encoding="utf-8")
        rows = [row for row in map(json.loads, text.splitlines()) if row["kind"] == "train"][2:]
        rates = sorted(row["samples_per_second"] for row in rows)
        events = Path(directory, "l", "ladder", "events.jsonl").read_text(encoding="utf-8")
        rungs = [event["rung"] for event in map(json.loads, events.splitlines()) if "rung" in event]
        return {
            "per_second": rates[len(rates) // 2],
            "lowest": rates[0],
            "highest": rates[-1],
            "mfu": rows[-1]["mfu"],
            "peak_gib": rows[-1]["memory_bytes"] / 2**30,
            "warm_up_seconds": rows[-1]["compile_seconds"],
            "rungs": rungs,
        }


def floors(name: str) -> dict[str, float | None]:
    """Return the highest rates that operations and bytes allow on this device."""
    facts = device_facts(torch.device("cuda", 0))
    peak = peak_flops(facts, "bf16")
    bandwidth = next((value for key, value in BANDWIDTH.items() if key in name), None)
    return {
        "resnet50_by_operations": peak / RESNET_FLOPS if peak else None,
        "resnet50_by_bytes": bandwidth / RESNET_BYTES if bandwidth else None,
        "gpt2_tokens_by_operations": peak / GPT_FLOPS if peak else None,
    }


def main() -> int:
    if not torch.cuda.is_available():
        print("devgw-run: error: no CUDA device is usable", file=sys.stderr)
        print("devgw-run: hint: run this on a machine with a GPU", file=sys.stderr)
        return PreflightError.exit_code
    name = torch.cuda.get_device_name(0)
    report: dict[str, object] = {"device": name, "torch": torch.__version__, "floors": floors(name)}
    for batch in RESNET_BATCHES:
        for stair, flags in STAIRS.items():
            report[f"resnet50 batch {batch} {stair}"] = measure(RESNET, ["--batch-size", str(batch), *flags])
    for batch in GPT_BATCHES:
        for stair in ("+ bf16", "+ compile", "+ graphs"):
            row = measure(GPT, ["--batch-size", str(batch), *STAIRS[stair]])
            report[f"gpt2 batch {batch} {stair} (sequences of {GPT_TOKENS})"] = row
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
