"""Plant each bug of `planted` in a copy of the runner, and see the test that it names fail there.

First those tests pass on a copy without a bug; else a failure would prove nothing. Prints the rows of the tables of
docs/reference/runner-mutants.md; exit code 1 if a bug lived. Arguments name single bugs.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
SOURCE = TESTS.parent / "src"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from planted import ALL, Mutant  # noqa: E402 - found by the path above

DEADLINE_SECONDS = 1300  # more than pytest's own for one test
STEP_SECONDS = 150
TESTS_FAILED = 1  # pytest's exit code for failed tests, not for tests that it could not collect


@dataclass(frozen=True)
class Verdict:
    """What pytest said of one test beside one bug."""

    exit_code: int
    seconds: float
    output: str

    @property
    def died(self) -> bool:
        return self.exit_code == TESTS_FAILED and "error during collection" not in self.output


def plant(mutant: Mutant, source: Path) -> None:
    """Edit a copy of the source.

    Raises:
        LookupError: an old text does not stand in its file exactly once.
    """
    for file, old, new in mutant.edits:
        path = source / "devgw_runner" / file
        text = path.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise LookupError(f"{mutant.name}: {file} has {text.count(old)} times {old!r}")
        path.write_text(text.replace(old, new), encoding="utf-8")


def run_tests(tests: list[str], source: Path) -> Verdict:
    """Run tests in a process of their own that imports the runner from `source`."""
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    done = subprocess.run(
        command,
        cwd=TESTS,
        env=os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", "STEP_SECONDS": str(STEP_SECONDS)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return Verdict(done.returncode, time.monotonic() - started, done.stdout[-4000:] + done.stderr[-2000:])


def copy_source(place: Path) -> Path:
    """Copy the runner's source below `place` and return the copy."""
    return Path(shutil.copytree(SOURCE, place / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")))


def try_mutant(mutant: Mutant) -> Verdict:
    """Plant one bug in a copy and run its test there."""
    with tempfile.TemporaryDirectory(prefix="devgw-mutant-") as place:
        source = copy_source(Path(place))
        plant(mutant, source)
        return run_tests([mutant.test], source)


def main(names: list[str]) -> int:
    """Try the named bugs, or all."""
    chosen = [mutant for mutant in ALL if not names or mutant.name in names]
    if unknown := [name for name in names if name not in {mutant.name for mutant in ALL}]:
        print(f"mutants: error: there is no bug {unknown[0]!r}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="devgw-mutant-") as place:
        sound = run_tests(sorted({mutant.test for mutant in chosen}), copy_source(Path(place)))
    if sound.exit_code != 0:
        print(sound.output)
        print("mutants: error: these tests fail without a bug too", file=sys.stderr)
        return 1
    print(f"without a bug: passed in {sound.seconds:.0f} s", flush=True)
    lived = []
    for mutant in chosen:
        verdict = try_mutant(mutant)
        print(f"| {mutant.name} | `{mutant.test}` | {'yes' if verdict.died else 'NO'} |", flush=True)
        if not verdict.died:
            lived.append(mutant.name)
            print(verdict.output)
    print(f"{len(chosen) - len(lived)} of {len(chosen)} bugs were seen")
    return 1 if lived else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
