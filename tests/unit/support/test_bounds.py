"""Nothing in the tests waits without an end, and nothing on the machine changes which signals they can send."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = (ROOT / "tests", ROOT / "containers/runner/tests")
RUNS = {"run", "call", "check_call", "check_output"}


def unbounded_calls(source: str) -> Iterator[int]:
    """Yield the lines that wait for a process to end, however long that takes."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        of, name = ast.unparse(node.func.value), node.func.attr
        waits = (of == "subprocess" and name in RUNS) or name == "communicate"
        if waits and not any(keyword.arg == "timeout" for keyword in node.keywords):
            yield node.lineno
        if of == "subprocess" and name == "Popen" and _is_entered(source, node):
            yield node.lineno


def _is_entered(source: str, call: ast.Call) -> bool:
    """`with subprocess.Popen` waits at its end, also after a failure: `processes.running` does not."""
    return source.splitlines()[call.lineno - 1].lstrip().startswith("with ")


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("subprocess.run(['x'])", [1]),
        ("subprocess.check_output(\n  ['x'], text=True)", [1]),
        ("process.communicate()", [1]),
        ("with subprocess.Popen(['x']) as p:\n    pass", [1]),
        ("subprocess.run(['x'], timeout=5)\nprocess.communicate(timeout=5)\np = subprocess.Popen(['x'])", []),
    ],
)
def test_a_wait_without_an_end_is_seen(source: str, lines: list[int]) -> None:
    """What the next test finds."""
    assert list(unbounded_calls(source)) == lines


@pytest.mark.parametrize("folder", FOLDERS, ids=["gateway", "runner"])
def test_every_process_that_is_waited_for_has_a_timeout(folder: Path) -> None:
    """A program that hangs fails its test, and says which."""
    found = [f"{file}:{line}" for file in folder.rglob("*.py") for line in unbounded_calls(file.read_text())]
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=["gateway", "runner"])
def test_a_test_that_waits_for_ever_fails(folder: Path, tmp_path: Path) -> None:
    """By the suite's own settings, with the limit made short; the place where it stood is shown."""
    (tmp_path / "test_stuck.py").write_text("import threading\ndef test_stuck():\n    threading.Event().wait()\n")
    settings = folder.parent / "pyproject.toml"
    assert "\ntimeout = " in settings.read_text()
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(settings), "-o", "timeout=1", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "threading.Event().wait()" in done.stdout
    assert "Timeout" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "test"),
    [
        ("tests", "tests/cli/test_process.py::test_interrupt_ends_with_130"),
        ("containers/runner", "containers/runner/tests/test_wrap.py::test_a_signal_to_the_whole_group_is_heard_once"),
    ],
    ids=["gateway", "runner"],
)
def test_ignored_signals_of_the_parent_change_nothing(folder: str, test: str) -> None:
    """As under `nohup make test`, and as a shell starts a job in the background."""
    ignoring = ["env", "--ignore-signal=INT", "--ignore-signal=HUP", "--ignore-signal=QUIT", "--block-signal=INT"]
    command = [*ignoring, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=300", test]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
