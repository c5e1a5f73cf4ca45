"""`make gpu-proof`: run every proof that needs a GPU, and write the outcome into the reference pages.

Each page has a section between two marks, which is replaced: card, driver, date, one line per test or measurement.
A step that cannot run is written as what it lacks, never left out.
"""

import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[1]
PROOF_PAGE = ROOT / "docs" / "reference" / "gpu-proof.md"
BENCHMARK_PAGE = ROOT / "docs" / "reference" / "benchmarks-runner.md"
BEGIN, END = "<!-- gpu-proof: begin -->", "<!-- gpu-proof: end -->"
NO_GPU_EXIT = 17
STEPS = {
    "the training runner": ["containers/runner/tests/gpu"],
    "the gateway": ["tests/gpu"],
}
Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Outcome:
    """One test: its name, how it ended (passed, failed), and the first line of what was wrong."""

    name: str
    state: str
    line: str = ""


@dataclass(frozen=True)
class Card:
    """What the proof ran on."""

    name: str
    driver: str
    date: str

    def describe(self) -> str:
        return f"{self.name}, driver {self.driver}, {self.date}"


def run_command(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=3600)


def find_card(run: Run = run_command) -> Card | None:
    """Ask nvidia-smi; None where there is no GPU."""
    try:
        done = run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    except OSError:
        return None
    if done.returncode != 0 or not done.stdout.strip():
        return None
    name, driver = (part.strip() for part in done.stdout.splitlines()[0].split(","))
    return Card(name, driver, dt.datetime.now(tz=dt.UTC).date().isoformat())


def read_outcomes(junit: str) -> list[Outcome]:
    """Read pytest's JUnit report. A skipped test counts as failed: nothing may be passed over here."""
    outcomes = []
    for case in ET.fromstring(junit).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        problem = next(
            (case.find(kind) for kind in ("failure", "error", "skipped") if case.find(kind) is not None), None
        )
        name = f"{case.get('classname', '').rsplit('.', 1)[-1]}: {case.get('name')}"
        lines = (problem.get("message") or "").strip().splitlines() if problem is not None else []
        outcomes.append(Outcome(name, "passed" if problem is None else "failed", lines[0] if lines else ""))
    return outcomes


def run_tests(paths: Sequence[str], run: Run = run_command) -> list[Outcome]:
    """Run tests, and return how each ended; one line of its own if not even the report came."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "junit.xml"
        done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", *paths])
        if not report.exists():
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            return [Outcome(" ".join(paths), "failed", last)]
        return read_outcomes(report.read_text(encoding="utf-8"))


def describe_outcomes(title: str, card: Card, outcomes: Sequence[Outcome]) -> list[str]:
    passed = sum(outcome.state == "passed" for outcome in outcomes)
    rows = [f"| {outcome.name} | {outcome.state} | {outcome.line.replace('|', '/')[:120]} |" for outcome in outcomes]
    heading = [f"Proof of {title}: {passed} of {len(outcomes)} passed. {card.describe()}.", ""]
    return [*heading, "| Test | State | What was wrong |", "|---|---|---|", *rows, ""]


def describe_ladder(card: Card, report: dict[str, object]) -> list[str]:
    """Return one row per measured choice; an error is a row too."""
    rows = []
    for name, measured in report.items():
        if not isinstance(measured, dict) or name == "floors":
            continue
        if "error" in measured:
            rows.append(f"| {name} | | | | {measured['error']} |")
            continue
        spread = f"{measured['lowest']:.0f} to {measured['highest']:.0f}"
        mfu = "" if measured["mfu"] is None else f"{measured['mfu']:.1%}"
        rungs = ", ".join(map(str, measured["rungs"]))
        rows.append(
            f"| {name} | {measured['per_second']:.0f} | {spread} | {mfu} | {measured['peak_gib']:.1f} GiB; {rungs} |"
        )
    heading = [f"Measured on {card.describe()}, torch {report.get('torch')}.", ""]
    return [*heading, "| What | Samples per second | Range | MFU | Memory, rungs |", "|---|---|---|---|---|", *rows, ""]


def replace_section(page: str, lines: Sequence[str]) -> str:
    """Return the page with what stands between the marks replaced; a page without marks gets them at its end."""
    section = "\n".join([BEGIN, *lines, END])
    if BEGIN not in page:
        return f"{page.rstrip()}\n\n{section}\n"
    before, rest = page.split(BEGIN, 1)
    return before + section + rest.split(END, 1)[1]


def main() -> int:
    card = find_card()
    if card is None:
        print("gpu-proof: error: nvidia-smi shows no GPU", file=sys.stderr)
        print("gpu-proof: hint: run this on a host with an NVIDIA GPU and its driver", file=sys.stderr)
        return NO_GPU_EXIT
    lines: list[str] = []
    failed = 0
    os.environ.setdefault("DOCKER_HOST", "unix:///var/run/docker.sock")
    os.environ.setdefault("DEVGW_TEST_IMAGE", "devgw/env:cuda")
    for title, paths in STEPS.items():
        print(f"gpu-proof: {title}", file=sys.stderr)
        outcomes = run_tests(paths)
        failed += sum(outcome.state != "passed" for outcome in outcomes)
        lines += describe_outcomes(title, card, outcomes)
    PROOF_PAGE.write_text(replace_section(PROOF_PAGE.read_text(encoding="utf-8"), lines), encoding="utf-8")
    print("gpu-proof: the ladder of choices, some minutes", file=sys.stderr)
    done = run_command([sys.executable, "containers/runner/benchmarks/gpu_ladder.py"])
    report = (
        json.loads(done.stdout) if done.returncode == 0 else {"gpu_ladder.py": {"error": done.stderr.strip()[:120]}}
    )
    failed += done.returncode != 0
    page = BENCHMARK_PAGE.read_text(encoding="utf-8")
    BENCHMARK_PAGE.write_text(replace_section(page, describe_ladder(card, report)), encoding="utf-8")
    print(f"gpu-proof: {failed} failed; written into {PROOF_PAGE.name} and {BENCHMARK_PAGE.name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
